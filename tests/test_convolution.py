"""The convolution's gradient against XLA's own, over shapes, precisions and platforms."""

import functools

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from wsol_jax import convolution

# height, width, channels in and out, kernel, stride, padding before and after
SHAPES = [
    (17, 18, 3, 8, 7, 2, (3, 3)),
    (9, 10, 4, 5, 3, 1, (1, 1)),
    (10, 9, 4, 5, 3, 2, (1, 1)),
    (9, 9, 4, 5, 1, 1, (0, 0)),
    (10, 11, 4, 5, 1, 2, (0, 0)),
    (9, 8, 2, 3, 1, 2, (1, 0)),
    (9, 8, 2, 3, 2, 3, (0, 1)),
    (8, 8, 2, 3, 4, 1, (2, 1)),
]


def problem(height, width, channels, filters, kernel, stride, padding, dtype=jnp.float32):
    """A convolution as two functions of (image, kernel), and a place to differentiate at."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, height, width, channels), dtype)
    w = jax.random.normal(keys[1], (kernel, kernel, channels, filters), dtype)
    options = {"dimension_numbers": convolution.LAYOUT}
    arguments = ((stride, stride), (padding, padding))

    def ours(x, w):
        return convolution.conv_general_dilated(x, w, *arguments, **options)

    def theirs(x, w):
        return lax.conv_general_dilated(x, w, *arguments, **options)

    dy = jax.random.normal(keys[2], jax.eval_shape(theirs, x, w).shape, dtype)
    return ours, theirs, (x, w), dy


def gradients(function, at, dy):
    """Output and both gradients."""
    y, pull = jax.vjp(function, *at)
    return y, *pull(dy)


def check(one, other, relative):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=relative * float(jnp.abs(b).max()))


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_xla(shape):
    ours, theirs, at, dy = problem(*shape)
    both = [jax.jit(functools.partial(gradients, f))(at, dy) for f in (ours, theirs)]
    check(*both, 2e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_xla_in_float64(shape):
    with jax.enable_x64(True):
        ours, theirs, at, dy = problem(*shape, dtype=jnp.float64)
        both = [jax.jit(functools.partial(gradients, f))(at, dy) for f in (ours, theirs)]
        check(*both, 1e-13)


def test_each_platform_takes_its_own_gradient():
    ours, _, at, dy = problem(*SHAPES[1])
    function = jax.jit(functools.partial(gradients, ours))
    texts = {}
    for platform in ("cpu", "cuda", "tpu"):
        exported = jax.export.export(function, platforms=(platform,))(at, dy)
        texts[platform] = exported.mlir_module().count("stablehlo.convolution")
    assert texts["cpu"] == 2  # the output, and the gradient of the input
    assert texts["cuda"] == texts["tpu"] == 3
    together = jax.export.export(function, platforms=("cpu", "cuda", "tpu"))(at, dy)
    check(together.call(at, dy), gradients(ours, at, dy), 1e-6)


@pytest.mark.parametrize("options", [{"kernel_dilation": 2}, {"feature_group_count": 2}])
def test_other_convolutions_are_handed_on(options):
    x = jax.random.normal(jax.random.key(0), (2, 9, 9, 4))
    layers = [nn.Conv(6, (3, 3), **options, conv_general_dilated=f) for f in FUNCTIONS]
    variables = layers[0].init(jax.random.key(1), x)
    grads = [jax.grad(lambda v, m=m: jnp.sum(m.apply(v, x) ** 2))(variables) for m in layers]
    jax.tree.map(np.testing.assert_array_equal, *grads)


FUNCTIONS = (lax.conv_general_dilated, convolution.conv_general_dilated)


@pytest.mark.parametrize("padding", ["SAME", "VALID", 1])
def test_in_a_flax_layer(padding):
    x = jax.random.normal(jax.random.key(0), (2, 9, 9, 4))
    layers = [nn.Conv(6, (3, 3), (2, 2), padding, conv_general_dilated=f) for f in FUNCTIONS]
    variables = layers[0].init(jax.random.key(1), x)
    grads = [jax.grad(lambda v, m=m: jnp.sum(m.apply(v, x) ** 2))(variables) for m in layers]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *grads)


@pytest.mark.parametrize(("size", "window", "stride", "padding"), [(9, 3, 2, 1), (8, 2, 2, 0)])
def test_max_pool_equals_the_librarys(size, window, stride, padding):
    x = jax.random.normal(jax.random.key(0), (2, size, size + 1, 3))

    def ours(x):
        return convolution.max_pool(x, window=window, stride=stride, padding=padding)

    def theirs(x):
        return nn.max_pool(x, (window,) * 2, (stride,) * 2, [(padding, padding)] * 2)

    dy = jax.random.normal(jax.random.key(1), ours(x).shape)
    for f, g in zip(jax.vjp(ours, x), jax.vjp(theirs, x), strict=True):
        if callable(f):
            np.testing.assert_array_equal(f(dy)[0], g(dy)[0])
        else:
            np.testing.assert_array_equal(f, g)
