import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import log_loss

from wsol_jax import losses


def pixels(seed=0, shape=(3, 7)):
    """Random logits, targets (255 where unknown) and which pixels are known."""
    rng = np.random.default_rng(seed)
    known = rng.random(shape) < 0.6
    target = np.where(known, rng.integers(0, 2, shape), 255)
    logits = rng.standard_normal((*shape, 2)).astype(np.float32)
    return jnp.asarray(logits), jnp.asarray(target), jnp.asarray(known)


def test_cross_entropy_equals_scikit_learn():
    rng = np.random.default_rng(0)
    logits, label = rng.standard_normal((5, 3)).astype(np.float32), rng.integers(0, 3, 5)
    valid = np.array([True, True, False, True, True])
    ratio = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(label), jnp.asarray(valid))
    odds = np.exp(logits.astype(np.float64))[valid]
    expected = log_loss(label[valid], odds / odds.sum(axis=1, keepdims=True), labels=[0, 1, 2])
    assert ratio.value == pytest.approx(expected, rel=1e-6)
    assert ratio.weight == 4


def test_partial_cross_entropy_is_the_mean_over_known_pixels_of_the_batch():
    logits, target, known = pixels()
    ratio = losses.partial_cross_entropy(logits, target, known)
    flat = [x[np.asarray(known)] for x in (logits, target)]
    alone = losses.cross_entropy(*flat, jnp.ones(len(flat[0]), bool))
    assert ratio.value == pytest.approx(float(alone.value), rel=1e-6)
    assert ratio.weight == known.sum() == alone.weight


def test_batches_combine_exactly_by_addition():
    logits, target, known = pixels(1)
    whole = losses.partial_cross_entropy(logits, target, known)
    parts = [losses.partial_cross_entropy(logits[i], target[i], known[i]) for i in range(3)]
    combined = jax.tree.map(lambda *x: sum(x), *parts)
    assert combined.value == pytest.approx(float(whole.value), rel=1e-6)
    assert combined.weight == whole.weight


def test_unknown_pixels_have_zero_gradient_even_if_not_finite():
    logits, target, known = pixels(2)
    logits = jnp.where(known[..., None], logits, jnp.nan)
    value, gradient = jax.value_and_grad(
        lambda x: losses.partial_cross_entropy(x, target, known).value
    )(logits)
    assert jnp.isfinite(value)
    np.testing.assert_array_equal(gradient[~known], 0)
    probability = jax.nn.softmax(logits[known])
    expected = (probability - jax.nn.one_hot(target[known], 2)) / known.sum()
    np.testing.assert_allclose(gradient[known], expected, atol=1e-6)


def test_nothing_known_gives_zero_and_no_gradient():
    logits, target, known = pixels(3)
    value, gradient = jax.value_and_grad(
        lambda x: losses.partial_cross_entropy(x, target, jnp.zeros_like(known)).value
    )(logits)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_maps_need_not_be_flattened():
    logits, target, known = pixels(5, (2, 12))
    flat = losses.partial_cross_entropy(logits, target, known)
    square = losses.partial_cross_entropy(
        logits.reshape(2, 3, 4, 2), target.reshape(2, 3, 4), known.reshape(2, 3, 4)
    )
    assert square.value == pytest.approx(float(flat.value), rel=1e-6)


def test_arithmetic_is_single_precision_or_better():
    logits, target, known = pixels(6)
    half = losses.partial_cross_entropy(logits.astype(jnp.bfloat16), target, known)
    rounded = logits.astype(jnp.bfloat16).astype(jnp.float32)
    assert half.total.dtype == jnp.float32
    assert half.value == losses.partial_cross_entropy(rounded, target, known).value
    with jax.enable_x64(True):
        double = losses.partial_cross_entropy(logits.astype(jnp.float64), target, known)
        assert double.value.dtype == jnp.float64


def test_the_distance_of_a_mean_is_not_the_mean_of_distances():
    values, valid = jnp.array([0.1, 0.9, 5.0]), jnp.array([True, True, False])
    distance = losses.Distance(losses.mean(values, valid), 0.5)
    assert distance.value == pytest.approx(0, abs=1e-7)
    away = losses.Distance(losses.mean(values, valid), 0.3)
    assert away.value == pytest.approx(0.2)
    gradient = jax.grad(lambda v: losses.Distance(losses.mean(v, valid), 0.3).value)(values)
    np.testing.assert_allclose(gradient, [0.5, 0.5, 0])


def test_devices_share_a_distance_and_agree_on_its_sign():
    """One device lies above the target, the other below; together they lie below."""
    values = jnp.array([[0.9, 0.7], [0.1, 0.0]])

    def share(v):
        term = losses.Distance(losses.mean(v, jnp.ones(2, bool)), 0.5)
        return term.share(lambda local: jax.lax.psum(local, "data"))

    shares, gradients = jax.vmap(jax.value_and_grad(share), axis_name="data")(values)
    whole = jax.value_and_grad(
        lambda v: losses.Distance(losses.mean(v, jnp.ones(4, bool)), 0.5).value
    )(values.ravel())
    assert shares.sum() == pytest.approx(float(whole[0]))
    np.testing.assert_allclose(gradients.ravel(), whole[1])


@pytest.mark.parametrize("t", [1.0, 2.5, 5.0])
def test_the_log_barrier_and_its_slope_are_continuous(t):
    joint = -1 / t**2
    near = jnp.array([joint - 1e-5, joint + 1e-5])
    values = losses.log_barrier(near, t)
    slopes = jax.vmap(jax.grad(losses.log_barrier), (0, None))(near, t)
    assert values[0] == pytest.approx(float(values[1]), abs=1e-3)
    assert slopes[0] == pytest.approx(float(slopes[1]), rel=1e-3)
    assert losses.log_barrier(jnp.array(-1.0), t) == 0
    assert np.isfinite(losses.log_barrier(jnp.array(3.0), t))


def test_the_barrier_grows_steeper_up_to_a_limit():
    barrier_t = losses.barrier_schedule(5.0, 1.01, 10.0)
    found = [float(barrier_t(epoch)) for epoch in (0, 1, 69, 70, 400)]
    assert found == pytest.approx([5.0, 5.05, 5 * 1.01**69, 10.0, 10.0], rel=1e-6)


@pytest.mark.parametrize("classes", [2, 5])
def test_uncertainty_is_greatest_where_all_classes_are_alike(classes):
    """EEM is KL(p || uniform) - log2 k and SEM is KL(uniform || p) + log2 k, by SciPy."""
    logits = 3 * jax.random.normal(jax.random.key(0), (40, classes))
    p, uniform = np.asarray(jax.nn.softmax(logits), np.float64), np.full(classes, 1 / classes)
    alike = jnp.zeros((1, classes))
    for function, divergences, constant in [
        (losses.eem, [entropy(row, uniform, base=2) for row in p], -np.log2(classes)),
        (losses.sem, [entropy(uniform, row, base=2) for row in p], np.log2(classes)),
    ]:
        found = function(logits)
        np.testing.assert_allclose(found, np.add(divergences, constant), atol=2e-5)
        least = function(alike)
        assert (found > least).all()
        np.testing.assert_allclose(least, constant, rtol=1e-6)
        slope = jax.grad(lambda x, function=function: function(x).sum())(alike)
        np.testing.assert_allclose(slope, 0, atol=1e-6)


@pytest.mark.parametrize("function", [losses.eem, losses.sem])
def test_uncertainty_is_finite_where_one_class_is_certain(function):
    logits = jnp.array([[1e4, -1e4], [0.0, 300.0]])
    values, slopes = function(logits), jax.grad(lambda x: function(x).sum())(logits)
    assert np.isfinite(values).all()
    assert np.isfinite(slopes).all()
    assert function(logits.astype(jnp.bfloat16)).dtype == jnp.float32
