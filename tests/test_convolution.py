"""Convolution equals XLA's own, values and gradients, on any platform and number of devices."""

import functools

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from jax import lax

from wsol_jax import convolution

NHWC = ("NHWC", "HWIO", "NHWC")
CASES = {  # height, width, channels in and out, kernel, strides, padding
    "pointwise": (7, 6, 5, 3, (1, 1), (1, 1), ((0, 0), (0, 0))),
    "pointwise, stride 2, odd": (7, 9, 3, 5, (1, 1), (2, 2), ((0, 0), (0, 0))),
    "pointwise, stride 2, even": (8, 6, 3, 5, (1, 1), (2, 2), "SAME"),
    "pointwise, strides 3 and 2": (8, 7, 4, 4, (1, 1), (3, 2), "VALID"),
    "pointwise, padded": (5, 5, 3, 2, (1, 1), (1, 1), ((1, 0), (0, 2))),
    "patches": (8, 12, 3, 5, (4, 4), (4, 4), "VALID"),
    "patches, padded": (7, 8, 3, 5, (3, 2), (3, 2), ((1, 2), (0, 1))),
    "patches, a remainder": (9, 11, 3, 5, (2, 4), (2, 4), ((0, 0), (0, 0))),
    "3x3": (7, 6, 3, 4, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "3x3, stride 2": (9, 8, 3, 4, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "even kernel, asymmetric": (8, 7, 2, 3, (2, 4), (1, 2), ((0, 1), (2, 1))),
    "stem": (17, 16, 3, 4, (7, 7), (2, 2), ((3, 3), (3, 3))),
}


def arrays(name, dtype=np.float32):
    """x, w, strides and padding of a case."""
    height, width, channels, features, kernel, strides, padding = CASES[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, height, width, channels)).astype(dtype)
    w = rng.standard_normal((*kernel, channels, features)).astype(dtype)
    return jnp.asarray(x), jnp.asarray(w), strides, padding


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def value_and_gradients(convolve, x, w, strides, padding):
    """y and the products of a random dy with dy/dx and dy/dw."""
    y, pull = jax.vjp(lambda x, w: convolve(x, w, strides, padding, dimension_numbers=NHWC), x, w)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
    return y, *pull(jnp.asarray(dy))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_equals_xla(name, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        case = arrays(name, dtype)
        expected = value_and_gradients(lax.conv_general_dilated, *case)
        found = value_and_gradients(convolution.conv_general_dilated, *case)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype == dtype
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(
    "options",
    [{"feature_group_count": 3}, {"rhs_dilation": (2, 2)}, {"lhs_dilation": (2, 1)}],
    ids=lambda options: next(iter(options)),
)
def test_hands_on_groups_and_dilation(options):
    x = jnp.arange(2.0 * 7 * 7 * 3).reshape(2, 7, 7, 3)
    w = jnp.ones((1, 1, 3 // options.get("feature_group_count", 1), 6))
    padding = ((0, 0), (0, 0))
    numbers = {"dimension_numbers": NHWC, **options}
    ours = convolution.conv_general_dilated(x, w, (1, 1), padding, **numbers)
    np.testing.assert_array_equal(ours, lax.conv_general_dilated(x, w, (1, 1), padding, **numbers))


def test_hands_on_other_layouts():
    x, w = jnp.arange(2.0 * 3 * 5 * 5).reshape(2, 3, 5, 5), jnp.ones((4, 3, 1, 1))
    ours = convolution.conv_general_dilated(x, w, (1, 1), "VALID")
    np.testing.assert_array_equal(ours, lax.conv_general_dilated(x, w, (1, 1), "VALID"))


def test_serves_flax_in_bfloat16():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 8))
    options = {"strides": 2, "padding": 0, "dtype": jnp.bfloat16}
    ours = nn.Conv(4, (1, 1), conv_general_dilated=convolution.conv_general_dilated, **options)
    theirs = nn.Conv(4, (1, 1), **options)
    variables = theirs.init(jax.random.key(1), x)

    def loss(variables, model):
        return jnp.sum(model.apply(variables, x).astype(jnp.float32) ** 2)

    assert ours.apply(variables, x).dtype == jnp.bfloat16
    for one, other in zip(
        jax.tree.leaves(jax.grad(loss)(variables, ours)),
        jax.tree.leaves(jax.grad(loss)(variables, theirs)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=0.02 * np.abs(other).max())


def test_maps_over_stacked_batches():
    x, w, strides, padding = arrays("pointwise, stride 2, odd")
    stack = jnp.stack([x, 2 * x, -x])

    def gradient(x):
        return value_and_gradients(convolution.conv_general_dilated, x, w, strides, padding)[2]

    np.testing.assert_allclose(
        jax.vmap(gradient)(stack), jnp.stack([gradient(x) for x in stack]), rtol=1e-5, atol=1e-5
    )


def test_is_a_product_on_cpu_and_a_convolution_elsewhere():
    x, w, strides, padding = arrays("pointwise")

    def step(x, w):
        return value_and_gradients(convolution.conv_general_dilated, x, w, strides, padding)

    texts = {
        platform: jax.export.export(jax.jit(step), platforms=[platform])(x, w).mlir_module()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert {p: t.count("stablehlo.convolution") for p, t in texts.items()} == {
        "cpu": 0,
        "cuda": 3,
        "tpu": 3,
    }


def test_one_export_serves_every_platform():
    x, w, strides, padding = arrays("pointwise, stride 2, odd")

    def step(x, w):
        return value_and_gradients(convolution.conv_general_dilated, x, w, strides, padding)

    exported = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(x, w)
    again = jax.export.deserialize(exported.serialize())
    for one, other in zip(again.call(x, w), step(x, w), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


EIGHT_DEVICES = """
import functools, jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from wsol_jax import convolution

P = PartitionSpec
assert jax.device_count() == 8
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
x = jax.random.normal(jax.random.key(0), (16, 6, 6, 8))
w = jax.random.normal(jax.random.key(1), (1, 1, 8, 4))

def loss(w, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    y = convolution.conv_general_dilated(x, w, (2, 2), "VALID", dimension_numbers=numbers)
    return jnp.sum(jnp.sin(y))

gradient = jax.grad(loss, (0, 1))
expected = jax.jit(gradient)(w, x)
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)

sharded = jax.device_put(x, NamedSharding(mesh, P("data")))
whole = jax.device_put(w, NamedSharding(mesh, P()))
compiled = jax.jit(gradient).lower(whole, sharded).compile()
assert "all-gather" not in compiled.as_text() and "all-reduce" in compiled.as_text()
jax.tree.map(close, compiled(whole, sharded), expected)

mapped = jax.shard_map(gradient, mesh=mesh, in_specs=(P(), P("data")), out_specs=(P(), P("data")))
jax.tree.map(close, jax.jit(mapped)(w, x), expected)

def local(w, x):
    dw, dx = gradient(w, x)
    return jax.lax.psum(dw, "data"), dx

dw, dx = jax.pmap(local, axis_name="data", in_axes=(None, 0))(w, x.reshape(8, 2, *x.shape[1:]))
close(dw[0], expected[0])
close(dx.reshape(x.shape), expected[1])
"""


def test_eight_devices_equal_one_without_gathers():
    processes.run(EIGHT_DEVICES, devices=8)


def test_max_pool_is_the_largest_and_its_gradient_the_first():
    x = np.random.default_rng(0).integers(-3, 0, (2, 7, 6, 3)).astype(np.float32)  # ties, no 0
    y, pull = jax.vjp(lambda x: convolution.max_pool(x, window=3, stride=2, padding=1), x)
    dy = np.arange(1.0, y.size + 1, dtype=np.float32).reshape(y.shape)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    expected, gradient = np.empty_like(y), np.zeros_like(padded)
    for b, i, j, c in np.ndindex(y.shape):
        window = padded[b, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3, c]
        first = np.unravel_index(window.argmax(), window.shape)
        expected[b, i, j, c] = window[first]
        gradient[b, 2 * i + first[0], 2 * j + first[1], c] += dy[b, i, j, c]
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(pull(dy)[0], gradient[:, 1:-1, 1:-1])


def test_max_pool_passes_on_what_is_not_a_number():
    x = np.zeros((1, 8, 8, 1), np.float32)
    x[0, 3, 3] = np.nan
    y = convolution.max_pool(jnp.asarray(x), window=3, stride=2, padding=1)
    np.testing.assert_array_equal(np.isnan(y[0, ..., 0]), np.pad(np.ones((2, 2)), 1) == 1)


def test_max_pool_takes_its_window_where_it_is_fast():
    x = jnp.zeros((1, 8, 8, 2))

    def step(x):
        return jax.grad(lambda x: jnp.sum(convolution.max_pool(x, window=3, stride=2, padding=1)))(
            x
        )

    texts = {
        platform: jax.export.export(jax.jit(step), platforms=[platform])(x).mlir_module()
        for platform in ("cpu", "cuda", "tpu")
    }
    scatters = {p: "stablehlo.select_and_scatter" in text for p, text in texts.items()}
    assert scatters == {"cpu": False, "cuda": True, "tpu": True}
