"""Polygons as pixels: against an independent point-in-polygon test, and across windows."""

import numpy as np
import pytest
from matplotlib import path
from PIL import Image, ImageDraw

from wsol_jax.slides import rasters

RNG = np.random.default_rng(3)
TRIANGLE = np.array([(10.5, 3.0), (40.25, 20.5), (5.0, 33.75)])
STAR = 30 + 25 * np.stack([np.cos(np.arange(5) * 2.513 + 0.1), np.sin(np.arange(5) * 2.513)], 1)
SCRIBBLE = RNG.uniform(-10, 70, (40, 2))
POLYGONS = {"triangle": TRIANGLE, "star": STAR, "scribble": SCRIBBLE}


@pytest.mark.parametrize("name", POLYGONS)
@pytest.mark.parametrize("downsample", [1, 2.5])
def test_interior_is_where_the_centres_are(name, downsample):
    window = rasters.Window(-7, 4, 60, 50, downsample)
    columns, rows = np.meshgrid(np.arange(60) + 0.5, np.arange(50) + 0.5)
    centres = np.stack([columns.ravel(), rows.ravel()], 1) * downsample + (-7, 4)
    for turn in (1, -1):
        polygon = POLYGONS[name][::turn]
        if name == "scribble":  # matplotlib joins by winding where a line crosses itself
            expected = even_odd(polygon, centres)
        else:
            expected = path.Path(polygon, closed=False).contains_points(centres)
            expected = expected if name == "triangle" else even_odd(polygon, centres)
        np.testing.assert_array_equal(rasters.interior(polygon, window), expected.reshape(50, 60))


def even_odd(polygon, points):
    """Crossings of the ray to the right, an edge and a point at a time."""
    inside = []
    for px, py in points:
        crossings = 0
        for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
            crossings += (y0 > py) != (y1 > py) and px < x0 + (py - y0) / (y1 - y0) * (x1 - x0)
        inside.append(crossings % 2 == 1)
    return np.array(inside)


def test_a_pixel_belongs_to_one_of_two_neighbours():
    left = np.array([(0, 0), (8.5, 0), (8.5, 9), (0, 9)], float)
    right = np.array([(8.5, 0), (12, 0), (12, 9), (8.5, 9)], float)
    window = rasters.Window(0, 0, 12, 9)
    masks = [rasters.interior(polygon, window) for polygon in (left, right)]
    assert np.all(masks[0] ^ masks[1])


def test_interior_has_the_area_of_the_polygon():
    big = STAR * 40  # the star's five points count once, its pentagon (crossed twice) not
    window = rasters.Window(0, 0, 2400, 2400)
    wound = rasters.interior(big[[0, 3, 1, 4, 2]], window)  # in order around: a convex pentagon
    x, y = big[[0, 3, 1, 4, 2]].T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert wound.sum() == pytest.approx(area, rel=1e-3)


@pytest.mark.parametrize("fill", [rasters.interior, rasters.drawing])
@pytest.mark.parametrize("name", POLYGONS)
def test_windows_join_without_a_seam(fill, name):
    polygon = np.round(POLYGONS[name])
    whole = fill(polygon, rasters.Window(-12, -12, 90, 90))
    tiles = [
        [fill(polygon, rasters.Window(x, y, 30, 30)) for x in (-12, 18, 48)] for y in (-12, 18, 48)
    ]
    np.testing.assert_array_equal(np.block(tiles), whole)


@pytest.mark.parametrize("far", [0, 100_000])
def test_far_from_the_origin_as_near(far):
    polygon = np.round(SCRIBBLE)
    for fill in (rasters.interior, rasters.drawing):
        here = fill(polygon, rasters.Window(3, 5, 40, 40))
        there = fill(polygon + far, rasters.Window(3 + far, 5 + far, 40, 40))
        np.testing.assert_array_equal(here, there)


def test_drawing_paints_the_outline_too():
    square = np.array([(2, 2), (6, 2), (6, 6), (2, 6)], float)
    window = rasters.Window(0, 0, 9, 9)
    assert rasters.drawing(square, window).sum() == 25
    assert rasters.interior(square, window).sum() == 16


@pytest.mark.parametrize("seed", range(5))
def test_drawing_is_nearly_that_of_todays_pillow(seed):
    rng = np.random.default_rng(seed)
    angle, radius = np.sort(rng.uniform(0, 2 * np.pi, 30)), rng.uniform(80, 140, 30)
    polygon = np.round(150 + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1))
    canvas = Image.new("1", (300, 300))
    ImageDraw.Draw(canvas).polygon(polygon.ravel().tolist(), outline=1, fill=1)
    drawn = rasters.drawing(polygon, rasters.Window(0, 0, 300, 300))
    assert np.sum(drawn != np.asarray(canvas)) <= 5  # joined corners


def test_near_holds_for_all_that_touch():
    window = rasters.Window(100, 100, 50, 50, 2.0)
    for offset, expected in [(0, True), (99, True), (250, False), (-110, False)]:
        square = np.array([(0, 0), (10, 0), (10, 10)], float) + 100 + offset
        assert rasters.near(square, window) == expected


def test_vertices_of_a_drawing_are_rounded_to_whole_pixels():
    shape, window = np.array([(2.6, 2.6), (6.6, 2.6), (6.4, 6.6), (2.6, 6.4)]), (0, 0, 12, 12)
    frame = rasters.Window(*window)
    drawn = rasters.drawing(shape, frame)
    np.testing.assert_array_equal(drawn, rasters.drawing(np.rint(shape), frame))
    assert np.any(drawn != rasters.drawing(np.floor(shape), frame))
