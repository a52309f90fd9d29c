"""Batch normalisation against its textbook form, differentiated whole, and against many devices."""

import jax
import jax.numpy as jnp
import numpy as np

from wsol_jax import batch_norm


def textbook(x, scale, bias, epsilon):
    """Two lines of NumPy's kind, every derivative taken."""
    mean, var = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
    return scale * (x - mean) / jnp.sqrt(var + epsilon) + bias


def arrays():
    """x far from zero, scale, bias and a direction."""
    rng = np.random.default_rng(0)
    x = 3 + rng.standard_normal((4, 5, 6, 3)) * np.array([0.5, 1, 7])
    return x, rng.standard_normal(3), rng.standard_normal(3), rng.standard_normal(x.shape)


def test_values_and_gradients_are_the_textbooks():
    with jax.enable_x64(True):
        x, scale, bias, direction = map(jnp.asarray, arrays())
        norm = batch_norm.BatchNorm(epsilon=1e-3)
        stats = norm.init(jax.random.key(0), x)["batch_stats"]

        def ours(x, scale, bias):
            variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
            return norm.apply(variables, x, train=True, mutable="batch_stats")[0]

        def theirs(x, scale, bias):
            return textbook(x, scale, bias, 1e-3)

        found, pull = jax.vjp(ours, x, scale, bias)
        expected, reference = jax.vjp(theirs, x, scale, bias)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        for one, other in zip(pull(direction), reference(direction), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


def test_running_statistics_move_by_the_momentum_towards_the_unbiased_variance():
    x = jnp.asarray(arrays()[0], jnp.float32)
    norm = batch_norm.BatchNorm(momentum=0.25)
    variables = norm.init(jax.random.key(0), x)
    _, moved = norm.apply(variables, x, train=True, mutable="batch_stats")
    flat = np.asarray(x).reshape(-1, 3)
    np.testing.assert_allclose(moved["batch_stats"]["mean"], 0.25 * flat.mean(0), rtol=1e-5)
    expected = 0.75 + 0.25 * flat.var(0, ddof=1)
    np.testing.assert_allclose(moved["batch_stats"]["var"], expected, rtol=1e-5)


def test_shards_share_their_statistics_and_gradients():
    x, _, _, direction = (jnp.asarray(a, jnp.float32) for a in arrays())
    whole, shared = batch_norm.BatchNorm(), batch_norm.BatchNorm(axis_name="data")
    variables = whole.init(jax.random.key(0), x)

    def train(norm):
        return lambda x: norm.apply(variables, x, train=True, mutable="batch_stats")[0]

    def gradient(norm, x, direction):
        return jax.vjp(train(norm), x)[1](direction)[0]

    def halves(a):
        return a.reshape(2, 2, *a.shape[1:])

    split = jax.vmap(lambda x, d: gradient(shared, x, d), axis_name="data")
    found = split(halves(x), halves(direction)).reshape(x.shape)
    np.testing.assert_allclose(found, gradient(whole, x, direction), rtol=1e-4, atol=1e-5)
