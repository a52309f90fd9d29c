"""Tissue told from glass: Otsu against brute force, the rule, blank glass, and the picture."""

import colorsys

import numpy as np
import pytest
import slide_factory
from PIL import Image

from wsol_jax.slides import reader, tissue


def brute_force(values, candidates):
    """The first of the candidates with the largest variance between the two sides."""

    def between(t):
        low, high = values[values <= t], values[values > t]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) * len(high) else 0

    scores = np.array([between(t) for t in candidates])
    return candidates[np.flatnonzero(scores >= scores.max() * (1 - 1e-12))[0]]


@pytest.mark.parametrize("seed", range(4))
def test_otsu_of_grey_levels(seed):
    rng = np.random.default_rng(seed)
    levels = np.concatenate([rng.normal(90, 20, 300 * (seed + 1)), rng.normal(220, 8, 700)])
    values = np.clip(levels, 0, 255).astype(np.uint8)
    threshold, distance = tissue.otsu(values.reshape(50, -1))
    assert threshold == brute_force(values.astype(float), np.arange(256))
    low, high = values[values <= threshold], values[values > threshold]
    assert distance == pytest.approx(high.mean() - low.mean())


def test_otsu_of_real_numbers():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.beta(2, 20, 500), rng.beta(8, 8, 400)])
    edges = np.linspace(values.min(), values.max(), tissue.BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    nearest = centres[np.clip(np.digitize(values, edges) - 1, 0, tissue.BINS - 1)]
    assert tissue.otsu(values)[0] == pytest.approx(brute_force(nearest, centres))


@pytest.mark.parametrize("value", [np.uint8(243), 0.25])
def test_otsu_of_one_value(value):
    assert tissue.otsu(np.full((4, 5), value)) == (value, 0)


def test_saturation_is_that_of_hsv():
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    rgb[0, 0] = 0
    expected = [[colorsys.rgb_to_hsv(*(pixel / 255))[1] for pixel in row] for row in rgb]
    np.testing.assert_allclose(tissue.saturation(rgb), expected, rtol=1e-12)


@pytest.fixture(scope="module")
def canvas():
    return slide_factory.picture()


def test_tissue_of_a_slide(canvas):
    found = tissue.tissue(canvas)
    stained = np.any(canvas != slide_factory.GLASS, axis=-1)
    assert np.mean(found != stained) < 0.002
    assert found[820:850, 30:420].any()  # the pen stroke passes for tissue, as it did


def test_thresholds_of_the_slide_serve_its_windows(canvas):
    limits = tissue.thresholds(canvas)
    whole = tissue.tissue(canvas)
    window = np.s_[300:500, 300:500]  # all tissue: its own thresholds would part tumor from stroma
    np.testing.assert_array_equal(tissue.tissue(canvas[window], limits), whole[window])
    assert tissue.tissue(canvas[window]).mean() < 0.9 < whole[window].mean()


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((243, 243, 243), 0),
        ((255, 255, 255), 0),
        ((128, 128, 128), 0),
        ((0, 0, 0), 0),
        ((214, 138, 180), 1),
    ],
)
def test_one_colour(colour, expected):
    blank = np.full((32, 32, 3), colour, np.uint8)
    assert tissue.tissue(blank).mean() == expected


def test_noise_of_blank_glass_is_no_tissue():
    noise = np.random.default_rng(0).normal(0, 1.5, (128, 128, 3))
    glass = (np.array([238, 240, 243]) + noise).astype(np.uint8)
    assert not tissue.tissue(glass).any()
    assert tissue.thresholds(glass) == (220, 220, 220, 0.05)


def test_rgb_min_as_released_and_as_written():
    rgb = np.full((10, 10, 3), (230, 230, 230), np.uint8)
    rgb[:5] = (150, 60, 140)
    rgb[0], rgb[1] = (90, 0, 80), (90, 5, 80)
    rows = tissue.tissue(rgb)[:, 0].tolist()
    assert rows == [False, True, True, True, True] + [False] * 5
    written = tissue.tissue(rgb, rgb_min=tissue.WRITTEN_RGB_MIN)[:, 0].tolist()
    assert written == [False, False, True, True, True] + [False] * 5


def test_picture_outlines_the_tissue(tmp_path, canvas):
    slide = reader.open_slide(slide_factory.write(tmp_path / "slide.tif", canvas))
    share = tissue.write_picture(slide, tmp_path / "tissue.png", side=550)
    with Image.open(tmp_path / "tissue.png") as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture)
    assert pixels.shape == (450, 550, 3)
    rim = np.all(pixels == tissue.OUTLINE, axis=-1)
    assert 1000 < rim.sum() < 4000  # a line around the piece, not an area
    assert share == pytest.approx(np.mean(np.any(canvas != slide_factory.GLASS, axis=-1)), abs=0.01)


def test_picture_frames_windows_where_they_lie(tmp_path, canvas):
    slide = reader.open_slide(slide_factory.write(tmp_path / "slide.tif", canvas))
    side = max(slide.size) // 2
    tissue.write_picture(slide, tmp_path / "tissue.png", windows=[(200, 100, 80, 60)], side=side)
    with Image.open(tmp_path / "tissue.png") as picture:
        framed = np.argwhere(np.all(np.asarray(picture) == tissue.FRAME, axis=-1))
    assert framed.min(axis=0).tolist() == [50, 100]
    assert framed.max(axis=0).tolist() == [79, 139]
    assert len(framed) == 2 * (30 + 40) - 4


def test_outline_is_the_rim_inside_of_the_mask():
    mask = np.zeros((6, 7), bool)
    mask[1:5, 1:6] = True
    rgb = np.zeros((6, 7, 3), np.uint8)
    rim = tissue.outlined(rgb, mask).any(axis=-1)
    assert rim.sum() == 14
    assert not rim[2:4, 2:5].any()
    assert not (rim & ~mask).any()
