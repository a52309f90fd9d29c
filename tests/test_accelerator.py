"""What a GPU or TPU computes, by either engine, is what the CPU computes; skipped where none is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import METHODS, batch, begin, small_method, transform

from wsol_jax import parallel, train

pytestmark = pytest.mark.skipif(
    jax.default_backend() == "cpu", reason="no accelerator: jax.devices() has CPUs alone"
)
STEPS = 3


@functools.cache
def trained(name, kind, platform, precision):
    """Parameters and batch statistics before and after some steps, and the losses of the last."""
    devices = jax.devices(platform)[:1]
    engine = parallel.engine(kind, devices)
    method = small_method(name, axis=engine.axis)
    if precision == "bfloat16":
        method = in_bfloat16(method)
    with jax.default_matmul_precision("highest"):
        start = jax.device_get(begin(method))
        step = engine.compile(train.make_step(method, transform(method), 32, axis=engine.axis))
        state = engine.place(start)
        for number in range(STEPS):
            state, losses = step(state, engine.feed(batch(number)), jax.random.key(0))
        return start, engine.fetch(state), engine.fetch(losses)


def in_bfloat16(method):
    """As `experiment.build` has it for training: the encoder computes in half precision."""
    encoder = method.model.encoder.clone(dtype=jnp.dtype(jnp.bfloat16))
    return method._replace(model=method.model.clone(encoder=encoder))


def way(start, end):
    """How far the steps have moved the parameters, as one vector."""
    moved = jax.tree.map(lambda a, b: np.ravel(np.float64(b) - np.float64(a)), start, end)
    return np.concatenate(jax.tree.leaves((moved.params, moved.batch_stats)))


def difference(left, right):
    """Of two ways, as a share of the second."""
    (start, end, _), (other_start, other_end, _) = left, right
    reference = way(other_start, other_end)
    return np.linalg.norm(way(start, end) - reference) / np.linalg.norm(reference)


@pytest.mark.parametrize("kind", ["jit", "pmap"])
@pytest.mark.parametrize("name", METHODS)
def test_steps_equal_those_of_the_cpu(name, kind):
    here = trained(name, kind, jax.default_backend(), "float32")
    assert difference(here, trained(name, "jit", "cpu", "float32")) < 2e-3


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_goes_the_same_way(name):
    """Losses within a percent or two; parameters are moved alike, but for rounding at kinks."""
    half = trained(name, "jit", jax.default_backend(), "bfloat16")
    full = trained(name, "jit", "cpu", "float32")
    for term, value in full[2].items():
        np.testing.assert_allclose(half[2][term], value, rtol=0.05, atol=0.02)
    assert difference(half, full) < 0.3


@pytest.mark.parametrize("name", METHODS)
def test_maps_equal_those_of_the_cpu(name):
    method = small_method(name)
    image = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    label = np.array([0, 1, 0, 1], np.int32)
    state = jax.device_get(begin(method))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    localize = jax.jit(method.localize)

    def on(platform):
        with jax.default_matmul_precision("highest"):
            return jax.device_get(
                localize(*jax.device_put((variables, image, label), jax.devices(platform)[0]))
            )

    (logits, maps), (expected, reference) = on(jax.default_backend()), on("cpu")
    if expected is not None:
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    for kind, values in reference.items():
        np.testing.assert_allclose(maps[kind], values, atol=1e-3)
