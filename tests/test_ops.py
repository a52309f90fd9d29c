"""Resizing, gathering, normalising and dropout of maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsol_jax import ops

MAPS = jax.random.normal(jax.random.key(0), (3, 5, 7, 2))


@pytest.mark.parametrize("shape", [(5, 7), (9, 20), (3, 4), (1, 1)])
def test_resize_equals_the_library(shape):
    expected = jax.image.resize(MAPS, (3, *shape, 2), "bilinear", antialias=False)
    np.testing.assert_allclose(ops.resize(MAPS, shape), expected, atol=1e-5)


def test_aligned_corners_keep_every_sample():
    resized = ops.resize(MAPS, (9, 13), align_corners=True)
    np.testing.assert_allclose(resized[:, ::2, ::2], MAPS, atol=1e-6)
    between = (MAPS[:, :-1] + MAPS[:, 1:]) / 2
    np.testing.assert_allclose(resized[:, 1::2, ::2], between, atol=1e-6)


def test_resizing_commutes_with_a_linear_map_of_channels():
    weights = jax.random.normal(jax.random.key(1), (2, 4))
    one = ops.resize(jnp.einsum("bhwc,ck->bhwk", MAPS, weights), (9, 9))
    other = jnp.einsum("bhwc,ck->bhwk", ops.resize(MAPS, (9, 9)), weights)
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_gather_equals_resize_then_index_with_equal_gradients():
    points = jax.random.randint(jax.random.key(2), (3, 6, 2), 0, 20)
    images = jnp.arange(3)[:, None]

    def gathered(maps):
        return ops.gather_bilinear(maps, points, (20, 24))

    def indexed(maps):
        return ops.resize(maps, (20, 24))[images, points[..., 0], points[..., 1]]

    np.testing.assert_allclose(gathered(MAPS), indexed(MAPS), atol=1e-6)
    cotangent = jax.random.normal(jax.random.key(3), (3, 6, 2))
    gradients = [jax.vjp(f, MAPS)[1](cotangent)[0] for f in (gathered, indexed)]
    np.testing.assert_allclose(*gradients, atol=1e-6)


def test_nearest_repeats_pixels():
    maps = jnp.arange(6).reshape(1, 2, 3)
    np.testing.assert_array_equal(
        ops.resize_nearest(maps, (4, 6)), np.repeat(np.repeat(maps, 2, 1), 2, 2)
    )


def test_doubled_is_nearest_at_twice_the_size_or_one_less():
    doubled = ops.doubled(MAPS)
    for less in (0, 1):
        shape = tuple(2 * side - less for side in MAPS.shape[1:3])
        np.testing.assert_array_equal(
            doubled[:, : shape[0], : shape[1]], ops.resize_nearest(MAPS, shape)
        )


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_maps_that_are_not_finite_or_constant_become_zero(value):
    maps = MAPS[..., 0].at[0, 1, 1].set(value).at[1].set(0.3)
    stretched = ops.min_max(maps)
    np.testing.assert_array_equal(stretched[:2], 0)
    np.testing.assert_array_equal(stretched[2:], ops.min_max(MAPS[2:, ..., 0]))


def test_min_max_spans_zero_to_one_for_each_map():
    stretched = ops.min_max(MAPS[..., 0])
    np.testing.assert_array_equal(stretched.min((1, 2)), 0)
    np.testing.assert_allclose(stretched.max((1, 2)), 1, rtol=1e-6)
    np.testing.assert_allclose(ops.min_max(3 * MAPS[..., 0] - 5), stretched, atol=1e-5)


def test_dropped_channels_are_whole_and_the_mean_is_kept():
    features = jnp.ones((64, 2, 2, 100))
    keys = jax.random.split(jax.random.key(0), 64)
    dropped = ops.drop_channels(features, keys, 0.25)
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1, :1], dropped.shape))
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.75)}
    assert abs(float(dropped.mean()) - 1) < 0.03
    np.testing.assert_array_equal(ops.drop_channels(features[5:6], keys[5:6], 0.25)[0], dropped[5])
