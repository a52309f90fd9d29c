"""Engines and devices do not change what a step computes; and it lowers for every platform."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from small import BATCH, METHODS, batch, begin, shapes, small_method, state_of, transform

from wsol_jax import evaluate, parallel, train

# Of the others, every term and module is tested by itself.
ENGINES = ("pixelcam", "negev", "maxmin")
NEVER_RUN = {"maxmin_camelyon16": ("classifier",)}  # which the published counts include
PROGRAM = """
import pathlib, sys
import jax, numpy as np
from small import begin, batch, tiny_method, transform
from wsol_jax import parallel, train


def wide(state):
    return jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, state)


jax.config.update("jax_enable_x64", True)  # rounding, at the kink of a ReLU, is no small matter
names, results = sys.argv[2:], {}
crop = 16  # float64 convolutions are slow unless they are optimised
starts = {name: jax.device_get(wide(begin(tiny_method(name)))) for name in names}
for name in names:
    for kind, devices in [("one", jax.devices()[:1]), ("jit", None), ("pmap", None)]:
        engine = parallel.engine("pmap" if kind == "pmap" else "jit", devices)
        method = tiny_method(name, axis=engine.axis)
        step = engine.compile(train.make_step(method, transform(method), crop, axis=engine.axis))
        state = engine.place(starts[name])
        for number in range(2):
            state, losses = step(state, engine.feed(batch(number)), jax.random.key(0))
        leaves = jax.tree.leaves(engine.fetch((state.params, state.batch_stats, losses)))
        results[f"{name}/{kind}"] = np.concatenate([np.ravel(x) for x in leaves])
np.savez(sys.argv[1], **results)
"""


@pytest.fixture(scope="module")
def on_eight_devices(tmp_path_factory):
    """Two steps of each method: one device, eight under jit, eight under pmap."""
    path = tmp_path_factory.mktemp("engines") / "results.npz"
    processes.run(PROGRAM, path, *ENGINES, devices=8)
    return np.load(path)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("engine", ["jit", "pmap"])
def test_eight_devices_equal_one(on_eight_devices, name, engine):
    one, eight = on_eight_devices[f"{name}/one"], on_eight_devices[f"{name}/{engine}"]
    np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-7)


@functools.cache
def step_of(name):
    """A method and its step, in which nothing but a gradient moves anything."""
    method = small_method(name)
    descent = transform(method, weight_decay=0.0)
    return method, jax.jit(train.make_step(method, descent, 32))


@pytest.mark.parametrize("name", METHODS)
def test_step_lowers_for_every_platform(name):
    method, step = step_of(name)
    state = jax.eval_shape(functools.partial(state_of, method), shapes(method))
    inputs = jax.eval_shape(lambda: (jax.tree.map(jnp.asarray, batch(0)), jax.random.key(0)))
    exported = jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(state, *inputs)
    assert exported.platforms == ("cpu", "cuda", "tpu")


@pytest.mark.parametrize("name", METHODS)
def test_one_finite_step(name):
    method, step = step_of(name)
    state = begin(method)
    after, losses = step(state, batch(0), jax.random.key(0))
    assert all(np.isfinite(v) for v in losses.values())
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), state.params, after.params)
    idle = {*method.frozen, *NEVER_RUN.get(name, ())}
    assert all(jax.tree.leaves({k: v for k, v in moved.items() if k not in idle}))
    assert not any(jax.tree.leaves([moved[k] for k in idle]))
    if "encoder" in method.frozen:
        jax.tree.map(
            np.testing.assert_array_equal,
            state.batch_stats["encoder"],
            after.batch_stats["encoder"],
        )


def test_evaluation_multiplies_in_single_precision():
    """Every product, so that on a TPU none is of factors rounded to bfloat16."""
    method = small_method("pixelcam")
    state = jax.device_get(begin(method))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    evaluated = parallel.compile_evaluation(evaluate._evaluation(method, "pxap"))
    text = evaluated.lower(variables, batch(0)).as_text()
    products = [
        line
        for line in text.splitlines()
        if "stablehlo.dot_general" in line or "stablehlo.convolution" in line
    ]
    assert len(products) > 10
    assert all("HIGH" in line for line in products)


def test_keys_of_images_follow_their_rows():
    whole = parallel.image_keys(jax.random.key(0), BATCH, None)
    halves = jax.vmap(
        lambda _: parallel.image_keys(jax.random.key(0), BATCH // 2, "data"), axis_name="data"
    )
    np.testing.assert_array_equal(
        jax.random.key_data(halves(jnp.zeros(2))).reshape(BATCH, -1), jax.random.key_data(whole)
    )


def test_unknown_engine():
    with pytest.raises(ValueError, match="unknown parallel engine 'gpu'; have \\['jit', 'pmap'\\]"):
        parallel.engine("gpu")
