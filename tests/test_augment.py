"""Views: geometry shared by image, mask and CAM; colour against a pixel-by-pixel reference."""

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsol_jax import augment

SIDE, SIZE = 12, 8


def _batch(count, *, cam_side=SIDE):
    """Images whose red is the row and green the column; the mask and the CAM encode both."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    image = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    code = (SIDE * rows + columns).astype(np.uint8)
    cam = np.random.default_rng(0).uniform(size=(count, cam_side, cam_side)).astype(np.float16)
    if cam_side == SIDE:
        cam = np.repeat((code / SIDE**2).astype(np.float32)[None], count, axis=0)
    return {
        "image": jnp.asarray(np.repeat(image[None], count, axis=0)),
        "mask": jnp.asarray(np.repeat(code[None], count, axis=0)),
        "cam": jnp.asarray(cam),
        "label": jnp.arange(count),
    }


def _keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def _view(batch, keys, turn=False):
    """The training view with its colours in [0, 1]."""
    return augment.train_view(batch, keys, size=SIZE, turn=turn, mean=(0.0,) * 3, std=(1.0,) * 3)


_jitted_view = jax.jit(_view)


@pytest.fixture
def plain_view(monkeypatch):
    """A view that leaves the colours as they are, so that they can carry coordinates."""
    monkeypatch.setattr(augment, "jitter", lambda image, order, factors: image)
    return jax.jit(lambda *args: _view(*args), static_argnums=2)


def _coordinates(view):
    image = np.rint(np.asarray(view["image"]) * 255).astype(int)
    return image[..., 0], image[..., 1]


def test_image_mask_and_cam_show_the_same_square(plain_view):
    view = plain_view(_batch(64), _keys(64))
    rows, columns = _coordinates(view)
    np.testing.assert_array_equal(view["mask"], SIDE * rows + columns)
    np.testing.assert_allclose(view["cam"] * SIDE**2, SIDE * rows + columns, atol=1e-4)
    np.testing.assert_array_equal(view["label"], np.arange(64))
    assert np.all(np.abs(np.diff(rows, axis=1)) == 1)
    assert np.all(np.diff(rows, axis=2) == 0)
    assert np.all(np.abs(np.diff(columns, axis=2)) == 1)
    assert np.all(np.diff(columns, axis=1) == 0)


def test_small_cam_is_resized_to_the_image_before_the_crop(plain_view):
    batch = _batch(16, cam_side=3)
    view = plain_view(batch, _keys(16))
    rows, columns = _coordinates(view)
    cam = batch["cam"].astype(jnp.float32)
    large = jax.image.resize(cam, (16, SIDE, SIDE), "bilinear", antialias=False)
    expected = np.asarray(large)[np.arange(16)[:, None, None], rows, columns]
    np.testing.assert_allclose(view["cam"], expected, atol=1e-6)
    assert view["cam"].dtype == jnp.float32
    assert view["cam"].min() >= 0
    assert view["cam"].max() <= 1


def test_corners_and_flips_are_uniform(plain_view):
    count = 4000
    rows, columns = _coordinates(plain_view(_batch(count), _keys(count)))
    corners = SIDE - SIZE + 1
    top, left = rows.min(axis=(1, 2)), columns.min(axis=(1, 2))
    upturned, mirrored = rows[:, 0, 0] > top, columns[:, 0, 0] > left
    for outcome, choices in ((top, corners), (left, corners), (upturned, 2), (mirrored, 2)):
        _assert_uniform(outcome, choices)
    _assert_uniform(((top * corners + left) * 2 + upturned) * 2 + mirrored, 4 * corners**2)


def test_without_turns_the_draws_stay_as_they_were(plain_view):
    """Results of runs rest on them: corner and flips, each from its half of the first half."""
    keys = _keys(32)
    rows, columns = _coordinates(plain_view(_batch(32), keys))
    for i, key in enumerate(keys):
        corner, flips = jax.random.split(jax.random.split(key)[0])
        top, left = map(int, jax.random.randint(corner, (2,), 0, SIDE - SIZE + 1))
        upturned, mirrored = jax.random.bernoulli(flips, shape=(2,))
        expected = np.mgrid[top : top + SIZE, left : left + SIZE]
        expected = expected[:, :: -1 if upturned else 1, :: -1 if mirrored else 1]
        np.testing.assert_array_equal((rows[i], columns[i]), expected)


def test_turns_make_the_eight_symmetries_equally_likely(plain_view):
    count = 4000
    view = plain_view(_batch(count), _keys(count), True)
    rows, columns = _coordinates(view)
    np.testing.assert_array_equal(view["mask"], SIDE * rows + columns)
    np.testing.assert_allclose(view["cam"] * SIDE**2, SIDE * rows + columns, atol=1e-4)
    top, left = rows.min(axis=(1, 2)), columns.min(axis=(1, 2))
    square = np.mgrid[:SIZE, :SIZE]
    turned = [np.rot90(square, turns, (1, 2)) for turns in range(4)]
    symmetries = turned + [one[:, :, ::-1] for one in turned]
    drawn = np.stack([rows - top[:, None, None], columns - left[:, None, None]], axis=1)
    equal = np.stack([(drawn == symmetry).all(axis=(1, 2, 3)) for symmetry in symmetries])
    assert np.all(equal.sum(axis=0) == 1)
    observed, expected = equal.sum(axis=1), count / 8
    assert np.sum((observed - expected) ** 2 / expected) < 24.3  # chi-square, 7 degrees, p = 0.001
    corners = SIDE - SIZE + 1
    _assert_uniform((top * corners + left) * 8 + equal.argmax(axis=0), 8 * corners**2)


@pytest.mark.parametrize("turn", [False, True])
def test_a_crop_of_a_padded_image_is_that_of_the_image(turn):
    sizes = np.array([[12, 9], [8, 8], [10, 12], [8, 11]] * 4, np.int32)
    batch, keys = _random_batch(len(sizes)), _keys(len(sizes))
    del batch["cam"]
    rows, columns = (np.arange(SIDE) < side[:, None] for side in sizes.T)
    inside = rows[:, :, None] & columns[:, None, :]
    alone = []
    for i, (height, width) in enumerate(sizes):
        cut = {name: values[i : i + 1, :height, :width] for name, values in batch.items()}
        alone.append(_view(cut, keys[i : i + 1], turn))
    for padding in (0, 255):  # whatever it holds, it is not seen
        padded = {
            "image": jnp.where(inside[..., None], batch["image"], padding),
            "mask": jnp.where(inside, batch["mask"], padding),
            "size": jnp.asarray(sizes),
        }
        views = jax.jit(_view, static_argnums=2)(padded, keys, turn)
        assert views.keys() == {"image", "mask"}
        for i, view in enumerate(alone):
            np.testing.assert_array_equal(views["mask"][i], view["mask"][0])
            np.testing.assert_allclose(views["image"][i], view["image"][0], atol=1e-5)


def _assert_uniform(outcome, choices):
    observed = np.bincount(outcome.astype(int), minlength=choices)
    expected = len(outcome) / choices
    assert len(observed) == choices
    assert np.all(np.abs(observed - expected) < 4 * np.sqrt(expected))


def test_orders_and_factors_of_the_jitter(monkeypatch):
    monkeypatch.setattr(augment, "jitter", lambda image, order, factors: (order, factors))
    draw = getattr(augment._draw_jitter, "__wrapped__", augment._draw_jitter)
    count = 4800
    order, factors = jax.vmap(draw, in_axes=(None, 0))(jnp.zeros((1, 1, 3)), _keys(count))
    order, factors = np.asarray(order), np.asarray(factors)
    known = {permutation: i for i, permutation in enumerate(itertools.permutations(range(4)))}
    _assert_uniform(np.asarray([known[tuple(o)] for o in order]), 24)
    for values, low, high in zip(
        factors.T, (0.5, 0.5, 0.5, -0.05), (1.5,) * 3 + (0.05,), strict=True
    ):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        _assert_uniform(np.clip((values - low) / (high - low) * 10, 0, 9), 10)


def _gray(image):
    return 0.2989 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]


def _turned(image, turn):
    """Hue through the standard library, pixel by pixel."""
    turned = np.empty_like(image)
    for index in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[index])
        turned[index] = colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value)
    return turned


def _reference(image, order, factors):
    """torchvision's documented definition: each step a blend clamped to [0, 1], or a hue shift."""
    for operation in order:
        factor = factors[operation]
        match operation:
            case 0:
                image = np.clip(factor * image, 0, 1)
            case 1:
                image = np.clip(factor * image + (1 - factor) * _gray(image).mean(), 0, 1)
            case 2:
                image = np.clip(factor * image + (1 - factor) * _gray(image)[..., None], 0, 1)
            case 3:
                image = _turned(image, factor)
    return image


def _colourful():
    """Random colours, and those on the edges of the hue's cases: grays, primaries, mixtures."""
    image = np.random.default_rng(1).uniform(size=(9, 7, 3))
    image[0, 0], image[0, 1], image[0, 2] = 0, 1, 0.5
    for i, corner in enumerate(itertools.product((0.0, 1.0), repeat=3)):
        image[1 + i, 0] = corner
    image[3:6, 5] = [[0.7, 0.7, 0.2], [0.2, 0.7, 0.7], [0.7, 0.2, 0.7]]
    return image


@pytest.mark.parametrize("seed", [0, 1])
def test_jitter_equals_the_definition_in_every_order(seed):
    rng = np.random.default_rng(seed)
    image = _colourful()
    orders = np.asarray(list(itertools.permutations(range(4))))
    factors = rng.uniform([0.5, 0.5, 0.5, -0.05], [1.5, 1.5, 1.5, 0.05], size=(24, 4))
    jitter = jax.jit(jax.vmap(augment.jitter, in_axes=(None, 0, 0)))
    views = jitter(jnp.asarray(image), jnp.asarray(orders), jnp.asarray(factors))
    for view, order, factor in zip(views, orders, factors, strict=True):
        np.testing.assert_allclose(view, _reference(image, order, factor), atol=2e-5)


def test_jitter_without_strength_changes_nothing():
    image = jnp.asarray(_colourful())
    view = augment.jitter(image, jnp.arange(4), jnp.asarray(augment.NO_JITTER))
    np.testing.assert_allclose(view, image, atol=1e-6)


def _random_batch(count):
    rng = np.random.default_rng(2)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (count, SIDE, SIDE, 3)), jnp.uint8),
        "mask": jnp.asarray(rng.integers(0, 2, (count, SIDE, SIDE)), jnp.uint8),
        "cam": jnp.asarray(rng.uniform(size=(count, 4, 4)), jnp.float16),
    }


def test_a_view_depends_on_its_own_key_alone():
    batch, keys = _random_batch(6), _keys(6)
    views = _jitted_view(batch, keys)
    alone = _jitted_view({name: value[4:5] for name, value in batch.items()}, keys[4:5])
    swapped = _jitted_view({name: value[::-1] for name, value in batch.items()}, keys[::-1])
    for name in batch:
        np.testing.assert_allclose(alone[name][0], views[name][4], atol=1e-6)
        np.testing.assert_allclose(swapped[name][::-1], views[name], atol=1e-6)


def test_views_differ_between_keys_and_repeat_with_one():
    batch = jax.tree.map(lambda x: jnp.repeat(x[:1], 6, axis=0), _random_batch(1))
    first, second = _jitted_view(batch, _keys(6))["image"][:2]
    assert np.abs(first - second).max() > 0.01
    first, second = _jitted_view(batch, jnp.stack([jax.random.key(7)] * 6))["image"][:2]
    np.testing.assert_array_equal(first, second)


def test_views_are_normalised_with_the_statistics_of_the_weights():
    batch, keys = _random_batch(6), _keys(6)
    view = augment.train_view(batch, keys, size=SIZE)["image"]
    image = view * np.asarray(augment.IMAGENET_STD) + np.asarray(augment.IMAGENET_MEAN)
    assert view.dtype == jnp.float32
    assert image.min() >= -1e-6
    assert image.max() <= 1 + 1e-6
    np.testing.assert_allclose(image, _jitted_view(batch, keys)["image"], atol=1e-5)


def test_eval_view_only_normalises():
    batch = _random_batch(2)
    view = augment.eval_view(batch, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    expected = (np.asarray(batch["image"]) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    np.testing.assert_allclose(view["image"], expected, atol=1e-5)
    assert view["image"].dtype == jnp.float32
    assert view["mask"] is batch["mask"]
    assert view["cam"] is batch["cam"]


def test_images_alone_are_enough():
    batch = {"image": _random_batch(2)["image"]}
    view = augment.train_view(batch, _keys(2), size=SIDE)
    assert list(view) == ["image"]
    assert view["image"].shape == (2, SIDE, SIDE, 3)


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="12x12 pixels are smaller than size=13"):
        augment.train_view(_random_batch(1), _keys(1), size=13)


def test_what_does_not_fit_the_crop_is_refused():
    batch = _random_batch(1)
    with pytest.raises(ValueError, match=r"masks of shape \(9, 12\) do not .* original_mask"):
        augment.train_view({**batch, "mask": batch["mask"][:, :9]}, _keys(1), size=SIZE)
    with pytest.raises(ValueError, match=r"which CAMs of one shape do not fit; .* keep_aspect"):
        augment.train_view({**batch, "size": jnp.array([[9, 12]])}, _keys(1), size=SIZE)


def test_lowers_for_every_platform():
    function = jax.jit(lambda b, k: augment.train_view(b, k, size=SIZE))
    exported = jax.export.export(function, platforms=("cpu", "cuda", "tpu"))
    assert exported(_random_batch(2), _keys(2)).platforms == ("cpu", "cuda", "tpu")
