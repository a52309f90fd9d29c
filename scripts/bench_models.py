"""What `bench.py` measures: methods on fresh weights, batches of noise, training steps."""

import jax
import jax.numpy as jnp
import numpy as np

from wsol_jax import experiment, heads, method, optimizer, parallel, train

FAST = ("head", "pixel_head")  # of every encoder


def build(name, size, encoder="resnet50", **keywords):
    """A method on an encoder, by default a stride-8 ResNet-50, and a fresh training state."""
    dtype = None if jax.default_backend() == "cpu" else jnp.bfloat16
    model = experiment.BACKBONES[encoder].make(dtype=dtype)
    return begun(method.build(name, model, heads.build("wgap", 2), **keywords), size)


def begun(built, size):
    """A method, and a fresh training state."""
    variables = jax.jit(built.model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))
    params, stats = variables["params"], variables.get("batch_stats", {})
    return built, train.State(jnp.int32(0), params, stats, transform().init(params))


def transform():
    """SGD as in training, at a rate that moves nothing far."""
    return optimizer.sgd(learning_rate=1e-6, steps_per_epoch=1, decay_epochs=(), fast=FAST)


def opposed(params):
    """The same weights, but the two classes are each other's opposite: one scores above 0.

    The map of that one cannot be empty, as those of random weights often are.
    """
    kernel = params["head"]["linear"]["kernel"]
    opposite = kernel.at[:, -2].set(-kernel[:, -1])
    return {**params, "head": {"linear": {**params["head"]["linear"], "kernel": opposite}}}


def random_batch(count, size):
    """A batch of noise, larger than the crop by an eighth, with CAMs."""
    rng, side = np.random.default_rng(0), size * 8 // 7
    return {
        "image": rng.integers(0, 256, (count, side, side, 3)).astype(np.uint8),
        "mask": rng.integers(0, 2, (count, side, side)).astype(np.uint8),
        "label": (np.arange(count) % 2).astype(np.int32),
        "valid": np.ones(count, bool),
        "cam": rng.random((count, size // 8, size // 8)).astype(np.float16),
    }


def centre(batch, size, name="image"):
    """The upper left square of the batch's images."""
    return batch[name][:, :size, :size]


def stepper(built, start, batch, size, devices=None):
    """A function that takes one training step on some devices, or on one, and waits for it."""
    engine = parallel.engine("jit", devices or jax.devices()[:1])
    step = engine.compile(train.make_step(built, transform(), size))
    held = [engine.place(jax.device_get(start))]

    def run():
        held[0], losses = step(held[0], engine.feed(batch), jax.random.key(0))
        jax.block_until_ready((held[0], losses))

    return run


def temporary_bytes(built, start, batch, size):
    """What the compiled step allocates beside its arguments and results."""
    step = jax.jit(train.make_step(built, transform(), size), donate_argnums=0)
    compiled = step.lower(start, batch, jax.random.key(0)).compile()
    return compiled.memory_analysis().temp_size_in_bytes
