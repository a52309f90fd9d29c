"""Polygons as pixels, in one window of a slide at a time; nothing is ever as large as the slide."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

Vertices = Float64[np.ndarray, "n 2"]  # x and y in level-0 pixels; a pixel spans [i, i + 1)

Spans = tuple[Int[np.ndarray, "m"], Float64[np.ndarray, "m"], Float64[np.ndarray, "m"]]


class Window(NamedTuple):
    """A window of a slide.

    Attributes:
      x, y: left and top in level-0 pixels.
      width, height: in pixels of its own.
      downsample: level-0 pixels per pixel, in both directions.
    """

    x: int
    y: int
    width: int
    height: int
    downsample: float = 1.0

    def checked(self) -> "Window":
        """This window, or a ValueError where it is empty."""
        if self.width < 1 or self.height < 1 or not self.downsample > 0:
            raise ValueError(
                f"a window of {self.width} x {self.height} pixels at downsample {self.downsample}: "
                "expected at least 1 x 1, and a positive downsample"
            )
        return self


def interior(vertices: Vertices, window: Window) -> Bool[np.ndarray, "height width"]:
    """The pixels whose centres lie inside of a polygon, by the even-odd rule.

    Every edge that crosses the line of centres of a row toggles the pixels to its right.
    """
    start = _in_window(vertices, window) - 0.5  # centres are at whole numbers now
    end = np.roll(start, -1, axis=0)
    rows = np.ceil(np.sort([start[:, 1], end[:, 1]], axis=0))
    row, x, _ = _crossings(start, end, rows, window)
    toggles = _count(row, np.ceil(x), window)
    return np.cumsum(toggles, axis=1)[:, :-1] % 2 == 1


def drawing(vertices: Vertices, window: Window) -> Bool[np.ndarray, "height width"]:
    """The pixels that ImageDraw.polygon of Pillow painted in 2019: the inside and most of the edge.

    Vertices are rounded to whole pixels. An edge crosses every row that it touches, and crosses the
    row of its lower end twice, unless that is the last of the polygon. The crossings of a row, in
    order, are pairs; a pair paints from the pixel nearest to the first to that nearest to the
    second. Horizontal edges are painted, too.
    """
    # Written out, since later versions of Pillow join corners and depend on where a canvas begins.
    start = np.floor(_in_window(np.rint(vertices), window))
    end = np.roll(start, -1, axis=0)
    spans = zip(_pairs(start, end, window), _flat_edges(start, end, window), strict=True)
    row, left, right = (np.concatenate(parts) for parts in spans)
    right = np.maximum(left, right + 1)  # a pair around no pixel paints none
    layers = np.cumsum(_count(row, left, window) - _count(row, right, window), axis=1)
    return layers[:, :-1] > 0


def near(vertices: Vertices, window: Window) -> bool:
    """Whether the bounding box of a polygon comes within a pixel of the window."""
    low, high = (f(_in_window(vertices, window), axis=0) for f in (np.min, np.max))
    return bool(np.all(low < np.add((window.width, window.height), 1)) and np.all(high > -1))


def _pairs(start: Vertices, end: Vertices, window: Window) -> Spans:
    """From the first pixel to the last between the crossings of every row, two by two."""
    low, high = np.sort([start[:, 1], end[:, 1]], axis=0)
    rows = np.stack([low, np.where(low < high, high + 1, low)])
    row, x, edge = _crossings(start, end, rows, window)
    twice = (row == high[edge]) & (row < high.max())
    row, x = np.concatenate([row, row[twice]]), np.concatenate([x, x[twice]])
    order = np.lexsort((x, row))
    first, last = x[order].reshape(-1, 2).T
    return row[order][::2], np.floor(first + 0.5), np.ceil(last - 0.5)


def _flat_edges(start: Vertices, end: Vertices, window: Window) -> Spans:
    """From the first pixel to the last of every horizontal edge."""
    y = start[:, 1]
    flat = (y == end[:, 1]) & (y >= 0) & (y < window.height)
    first, last = np.sort([start[flat, 0], end[flat, 0]], axis=0)
    return y[flat].astype(int), first, last


def _crossings(
    start: Vertices, end: Vertices, rows: Float64[np.ndarray, "2 n"], window: Window
) -> tuple[Int[np.ndarray, "m"], Float64[np.ndarray, "m"], Int[np.ndarray, "m"]]:
    """Row, x and edge of every crossing of the rows from `rows[0]` up to, not with, `rows[1]`."""
    first, last = np.clip(rows, 0, window.height).astype(int)
    count = last - first
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (x, y), (dx, dy) = start[edge].T, (end - start)[edge].T
    return row, x + (row - y) * dx / dy, edge


def _count(
    row: Int[np.ndarray, "m"], column: Float64[np.ndarray, "m"], window: Window
) -> Int[np.ndarray, "height _"]:
    """How many of the places lie in every pixel; columns beyond the window count at its ends."""
    shape = (window.height, window.width + 1)
    place = row * shape[1] + np.clip(column, 0, window.width).astype(int)
    return np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)


def _in_window(vertices: Vertices, window: Window) -> Vertices:
    return (vertices - (window.x, window.y)) / window.downsample
