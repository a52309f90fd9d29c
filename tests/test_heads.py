"""Pooling heads against what they become in their limits, and the pixel head's depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsol_jax import heads

B, H, W, C, K = 3, 4, 6, 5, 2
ALL = ["wgap", "max", "lse", "wildcat", "deep_mil", "conv_gap"]


@pytest.fixture
def features():
    return jax.random.normal(jax.random.key(0), (B, H, W, C))


def built(name, features, **keywords):
    """Logits and maps of a head with random weights."""
    head = heads.build(name, K, **keywords)
    variables = head.init(jax.random.key(1), features)
    return head.apply(variables, features), head.apply(variables, features, method="maps")


@pytest.mark.parametrize("name", ALL)
def test_logits_and_maps_have_one_value_for_each_class(name, features):
    logits, maps = built(name, features)
    assert logits.shape == (B, K)
    assert maps.shape == (B, H, W, K)
    half, _ = built(name, features.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32


@pytest.mark.parametrize(
    ("start", "bound"), [("xavier", (6 / (64 + 20)) ** 0.5), ("uniform", 1 / 8)]
)
def test_initial_weights_of_wildcat_are_uniform_within_their_bound(start, bound):
    head = heads.build("wildcat", 2, modalities=10, background_row=False, start=start)
    weights = head.init(jax.random.key(0), jnp.zeros((1, 2, 2, 64)))["params"]["to_modalities"]
    assert 0.98 * bound < jnp.abs(weights["kernel"]).max() <= bound
    assert jnp.std(weights["kernel"]) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_unknown_initial_weights():
    with pytest.raises(ValueError, match=r"unknown start 'normal'; have \['uniform', 'xavier'\]"):
        heads.build("wildcat", 2, start="normal").init(jax.random.key(0), jnp.zeros((1, 2, 2, 3)))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"kmax": 0.0}, "kmax is 0.0; expected a number above 0 and at most 1"),
        ({"kmax": 2.0}, "kmax is 2.0; expected"),
        ({"kmin": -0.1}, "kmin is -0.1; expected a number at least 0 and at most 1"),
        ({"modalities": 0}, "modalities is 0; expected a number at least 1"),
    ],
)
def test_impossible_numbers_of_wildcat(features, wrong, expected):
    with pytest.raises(ValueError, match=expected):
        built("wildcat", features, **wrong)


@pytest.mark.parametrize("name", ["wgap", "conv_gap"])
def test_average_pooling_is_the_mean_of_the_maps(name, features):
    logits, maps = built(name, features)
    np.testing.assert_allclose(logits, maps.mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_maximum_and_its_neighbours_in_the_limit(features):
    largest, maps = built("max", features)
    np.testing.assert_allclose(largest, maps.max((1, 2)), rtol=1e-6)
    one_pixel = {"modalities": 1, "alpha": 0.0}
    sharp, maps = built("lse", features, sharpness=1e4)
    np.testing.assert_allclose(sharp, maps.max((1, 2)), rtol=1e-3)
    flat, _ = built("lse", features, sharpness=1e-3)
    np.testing.assert_allclose(flat, maps.mean((1, 2)), rtol=1e-2, atol=1e-3)
    top, maps = built("wildcat", features, kmax=1 / (H * W), **one_pixel)
    np.testing.assert_allclose(top, maps.max((1, 2)), rtol=1e-6)
    mean, maps = built("wildcat", features, kmax=1.0, **one_pixel)
    np.testing.assert_allclose(mean, maps.mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_log_sum_exp_does_not_overflow(features):
    logits, maps = built("lse", 1e4 * features)
    assert np.isfinite(logits).all()
    assert (logits <= maps.max((1, 2))).all()


def test_wildcat_adds_the_lowest_scores(features):
    """s = mean of the top 25 % + alpha * mean of the lowest 50 %, in NumPy."""
    logits, maps = built("wildcat", features, modalities=3, kmax=0.25, kmin=0.5, alpha=0.7)
    ordered = np.sort(np.asarray(maps).reshape(B, -1, K), axis=1)
    expected = ordered[:, -6:].mean(1) + 0.7 * ordered[:, :12].mean(1)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_wildcat_drops_scores_only_while_training(features):
    head = heads.build("wildcat", K, dropout=0.5)
    variables = head.init(jax.random.key(1), features)
    keys = jax.random.split(jax.random.key(2), B)
    evaluated = head.apply(variables, features, keys)
    np.testing.assert_array_equal(evaluated, head.apply(variables, features))
    assert np.abs(head.apply(variables, features, keys, train=True) - evaluated).max() > 1e-3


@pytest.mark.parametrize("gated", [True, False])
def test_deep_mil_attends_with_weights_that_add_up_to_one(gated, features):
    _, attention = built("deep_mil", features, gated=gated)
    np.testing.assert_allclose(attention.sum((1, 2)), 1, rtol=1e-5)
    same = jnp.broadcast_to(features[:, :1, :1], features.shape)
    logits, attention = built("deep_mil", same, gated=gated)
    np.testing.assert_allclose(attention, 1 / (H * W), rtol=1e-4)
    alone, _ = built("deep_mil", same[:, :1, :1], gated=gated)
    np.testing.assert_allclose(logits, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["wgap", "max", "lse", "wildcat"])
def test_the_background_row_is_never_used(name, features):
    head = heads.build(name, K)
    variables = head.init(jax.random.key(1), features)

    def total(params):
        return jnp.sum(head.apply({"params": params}, features) ** 2)

    gradient = jax.grad(total)(variables["params"])
    unused = 5 if name == "wildcat" else 1
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf[..., :unused], 0)
        assert np.abs(leaf[..., unused:]).min() > 0
