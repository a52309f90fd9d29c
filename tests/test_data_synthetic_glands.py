"""Drawn tissue: the same on every draw, instance masks that fit the picture, no easy way out."""

import hashlib

import numpy as np
import pytest

from wsol_jax.data import drawing, gland_shapes, synthetic_glands

PICTURES = [synthetic_glands.draw("train", i) for i in range(12)]
IMAGES, MASKS = (np.stack(arrays) for arrays in zip(*PICTURES, strict=True))


def test_a_picture_depends_on_its_arguments_alone():
    again = synthetic_glands.draw.__wrapped__("train", 3)
    np.testing.assert_array_equal(again[0], IMAGES[3])
    np.testing.assert_array_equal(again[1], MASKS[3])


def test_no_picture_comes_twice():
    drawn = [synthetic_glands.draw(s, i)[0] for s in ("train", "valcl", "test") for i in range(4)]
    assert len({hashlib.sha256(image.tobytes()).digest() for image in drawn}) == 12


def test_splits():
    sizes = {s: len(synthetic_glands.examples(s)) for s in synthetic_glands.SPLITS}
    assert sizes == synthetic_glands.SPLITS
    for split in sizes:
        labels = [example.label for example in synthetic_glands.examples(split)]
        assert labels.count(0) == labels.count(1)


def test_pixel_labelled_images_are_from_valcl():
    valcl, valpx = (synthetic_glands.examples(s) for s in ("valcl", "valpx"))
    assert [e.name for e in valpx] == [e.name for e in valcl[:6]]
    np.testing.assert_array_equal(valpx[5].read()[0], valcl[5].read()[0])


def test_unknown_split():
    with pytest.raises(ValueError, match="unknown split 'dev'; have"):
        synthetic_glands.examples("dev")


def test_masks_number_the_glands():
    for mask in MASKS:
        present = np.unique(mask)[1:]
        assert 4 <= len(present) <= 30
        assert 0.3 < np.mean(mask > 0) < 0.65


def test_share_and_mean_colour_do_not_tell_the_class():
    labels = np.arange(12) % 2
    share = np.mean(MASKS > 0, axis=(1, 2))[:, None]
    for values in np.hstack([share, np.mean(IMAGES, axis=(1, 2))]).T:
        benign, malignant = values[labels == 0], values[labels == 1]
        assert benign.min() < malignant.max()
        assert malignant.min() < benign.max()


@pytest.mark.parametrize("malignant", [False, True])
def test_most_glands_are_of_the_kind_of_the_image(malignant):
    for seed in range(8):
        glands = gland_shapes.place(np.random.default_rng(seed), malignant=malignant)
        inside = glands.number > 0
        assert 0 < np.mean(glands.atypical[inside] != malignant) < 0.5
        np.testing.assert_array_equal(inside, glands.depth > 0)


def test_benign_glands_are_rounder():
    # Perimeter over that of a disc of equal area, on the glands that the canvas shows whole.
    def roughness(malignant):
        values = []
        for seed in range(6):
            number = gland_shapes.place(np.random.default_rng(seed), malignant=malignant).number
            border = np.concatenate([number[0], number[-1], number[:, 0], number[:, -1]])
            for n in np.setdiff1d(np.unique(number), [0, *border]):
                gland = number == n
                edge = np.sum(gland[1:] != gland[:-1]) + np.sum(gland[:, 1:] != gland[:, :-1])
                values.append(edge / np.sqrt(np.sum(gland)))
        return np.mean(values)

    assert roughness(False) < 0.95 * roughness(True)


def test_scattered_points_keep_their_distance():
    share = np.ones((drawing.SIZE, drawing.SIZE))
    points = drawing.scatter(np.random.default_rng(0), share, spacing=9.0, darts=4000)
    distance = np.hypot(*(points[:, :, None] - points[:, None, :]))
    np.fill_diagonal(distance, np.inf)
    assert points.shape[1] > 300
    assert distance.min() > 9.0 - np.sqrt(2)  # kept on the pixel grid


def test_scattered_points_stay_where_they_may():
    share = (drawing.COLUMNS < 50).astype(float)
    points = drawing.scatter(np.random.default_rng(0), share, spacing=5.0, darts=500)
    assert points[1].max() < 50


def test_stains_absorb_light():
    haematoxylin, eosin = np.full((2, drawing.SIZE, drawing.SIZE), 0.1)
    haematoxylin[:128], eosin[128:] = 1.0, 1.0
    image = drawing.stained(np.random.default_rng(0), haematoxylin, eosin).astype(float)
    blue, pink = image[:128].mean((0, 1)), image[128:].mean((0, 1))
    assert blue[2] > blue[0] + 15  # haematoxylin takes the red light
    assert pink[0] > pink[1] + 30  # eosin takes the green
    assert blue.max() < 230


def test_strength_of_a_stain_is_that_of_the_image():
    fields = np.random.default_rng(0).uniform(0.1, 1, (2, drawing.SIZE, drawing.SIZE))
    once, thrice = (drawing.stained(np.random.default_rng(1), *(k * fields)) for k in (1, 3))
    np.testing.assert_allclose(once.astype(int), thrice, atol=1)
