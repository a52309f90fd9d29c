"""Read-outs against their closed forms for a pooled linear head, where the gradient is constant."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsol_jax import cams, heads, ops

B, H, W, C, K = 3, 5, 4, 6, 2
LABELS = jnp.array([0, 1, 1])


@pytest.fixture
def trained():
    """Features after a ReLU, the head's score function, and its weights for each image's label."""
    head = heads.build("wgap", K)
    features = jax.nn.relu(jax.random.normal(jax.random.key(0), (B, H, W, C)))
    variables = head.init(jax.random.key(1), features)
    weights = variables["params"]["linear"]["kernel"][:, 1:]
    score, maps = (functools.partial(head.apply, variables, method=m) for m in (None, "maps"))
    return features, cams.Head(score, maps), weights.T[LABELS]


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_cam_is_hw_times_grad_cam_before_the_relu_but_for_the_bias(trained):
    features, head, weights = trained
    cam = (
        cams.cam(head, features, LABELS)
        - head.score(jnp.zeros((1, H, W, C)))[0, LABELS, None, None]
    )
    close(cam, jnp.einsum("bhwc,bc->bhw", features, weights))
    close(jax.nn.relu(cam), H * W * cams.grad_cam(head, features, LABELS))


def test_mean_of_cam_is_the_logit(trained):
    features, head, _ = trained
    logits = head.score(features)[jnp.arange(B), LABELS]
    close(cams.cam(head, features, LABELS).mean((1, 2)), logits)


def test_layer_cam_closed_form(trained):
    features, head, weights = trained
    expected = jnp.einsum("bhwc,bc->bhw", features, jax.nn.relu(weights)) / (H * W)
    close(cams.layer_cam(head, features, LABELS), expected)


def test_grad_cam_pp_closed_forms(trained):
    features, head, weights = trained
    g = weights / (H * W)
    released = H * W * g**2 * jax.nn.relu(g)
    maps = cams.grad_cam_pp(head, features, LABELS)
    np.testing.assert_allclose(
        maps, jax.nn.relu(jnp.einsum("bhwc,bc->bhw", features, released)), rtol=1e-4, atol=1e-9
    )
    alpha = 1 / (2 + g * features.sum((1, 2)))
    published = H * W * alpha * jax.nn.relu(g)
    close(
        cams.grad_cam_pp_published(head, features, LABELS),
        jax.nn.relu(jnp.einsum("bhwc,bc->bhw", features, published)),
    )


def test_published_grad_cam_pp_of_gradients_whose_squares_are_0(trained):
    """There alpha is one half wherever g is not 0, so that w_k = sum_ij relu(g_ij) / 2."""
    features, head, _ = trained
    features = features.at[:, 2].set(0)  # whose gradient is another than its neighbours'
    mask = jnp.arange(H)[:, None, None] != 2
    small = cams.Head(lambda a: 1e-25 * head.score(a * mask), head.maps)
    got = cams.grad_cam_pp_published(small, features, LABELS)
    expected = cams.grad_cam_pp_published(
        small._replace(score=lambda a: 1e-6 * head.score(a * mask)), features, LABELS
    )
    assert np.all(got.max((1, 2)) > 0)
    np.testing.assert_allclose(got / 1e-25, expected / 1e-6, rtol=1e-3)


@pytest.mark.parametrize("name", ["cam", "grad_cam", "grad_cam_pp", "layer_cam"])
def test_images_do_not_see_each_other(trained, name):
    features, head, _ = trained
    readout = jax.jit(functools.partial(cams.readout(name), head))
    together = readout(features, LABELS)
    for image in range(B):
        alone = readout(features[image : image + 1], LABELS[image : image + 1])
        np.testing.assert_allclose(alone[0], together[image], rtol=1e-5, atol=1e-12)


def test_the_class_changes_the_map_but_not_of_mean_features(trained):
    features, head, _ = trained
    assert np.abs(cams.cam(head, features, LABELS) - cams.cam(head, features, 1 - LABELS)).max() > 0
    other = cams.mean_features(head, features, 1 - LABELS)
    np.testing.assert_array_equal(cams.mean_features(head, features, LABELS), other)


def test_unknown_readout_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown read-out 'scorecam'; have .*'layer_cam'"):
        cams.readout("scorecam")


@pytest.mark.parametrize("name", ["cam", "grad_cam"])
def test_bounded_maps_cut_at_one_half_are_the_larger_class_map(trained, name):
    """Also after resizing, and where both class maps are zero behind their ReLU."""
    features, head, _ = trained
    features = features.at[:, :3].set(0)
    readout = cams.readout(name)
    maps = cams.bounded(readout, head, features, LABELS)
    classes = jnp.stack([readout(head, features, jnp.full(B, k)) for k in range(K)], axis=-1)
    for shape in ((H, W), (37, 41)):
        large = ops.resize(classes, shape, align_corners=True)
        expected = jnp.argmax(large, axis=-1) == LABELS[:, None, None]
        found = ops.resize_maps(maps, shape, align_corners=True) >= 0.5
        near = jnp.abs(large[..., 0] - large[..., 1]) < 1e-6 * jnp.abs(classes).max()
        tied = (large == 0).all(axis=-1)
        assert not (found != expected)[~near | tied].any()
        assert 0.05 < expected.mean() < 0.95
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_of_equal_maps_of_many_classes_the_lowest_wins():
    scores = jax.random.randint(jax.random.key(0), (32, 5, 5, 4), 0, 3).astype(float)
    head = cams.Head(lambda features: jnp.mean(features, axis=(1, 2)), lambda features: features)
    label = jnp.arange(32) % 4
    maps = cams.bounded(cams.cam, head, scores, label)
    np.testing.assert_array_equal(maps > 0.5, jnp.argmax(scores, axis=-1) == label[:, None, None])


def test_bounded_attention_exceeds_its_mean_over_pixels_and_classes():
    head = heads.build("deep_mil", K, gated=False)
    features = jax.random.normal(jax.random.key(0), (B, H, W, C))
    variables = head.init(jax.random.key(1), features)
    score, attention = (functools.partial(head.apply, variables, method=m) for m in (None, "maps"))
    maps = cams.bounded(cams.deep_mil, cams.Head(score, attention), features, LABELS)
    own = attention(features)[jnp.arange(B), ..., LABELS]
    np.testing.assert_array_equal(maps >= 0.5, own > 1 / (H * W * K))
