"""Where the glands of a drawn image lie, and which of them look atypical."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from wsol_jax.data import drawing

Window = tuple[slice, slice]


class Glands(NamedTuple):
    """The glands of an image, per pixel.

    Attributes:
      number: of the pixel's gland, from 1; 0 outside. atypical: whether that gland is.
      depth: pixels to the gland's edge, negative outside. outward: the angle that leads there.
      centre: 0 in the gland's middle, 1 on its outline. radius: its mean radius in pixels.
    """

    number: UInt8[np.ndarray, "s s"]
    atypical: Bool[np.ndarray, "s s"]
    depth: drawing.Field
    outward: drawing.Field
    centre: drawing.Field
    radius: drawing.Field


def place(rng: np.random.Generator, *, malignant: bool) -> Glands:
    """Glands thrown onto the canvas until they cover a random share of it.

    Benign ones are round and keep their distance; malignant ones are irregular and crowd.
    """
    share, size, tilt = rng.uniform(0.36, 0.54), rng.uniform(34, 44), rng.uniform(0, np.pi)
    near, gap, sizes = (0.78, 0.06, (0.7, 1.35)) if malignant else (1.1, 0.16, (0.85, 1.2))
    placed = np.zeros((0, 3))
    canvas = (drawing.SIZE, drawing.SIZE)
    nearest, second = np.full((2, *canvas), 9, np.float32)  # `centre` of the nearest two glands
    number, radius = np.zeros(canvas, np.uint8), np.ones(canvas, np.float32)
    for _ in range(600):
        row, column = rng.uniform(-25, drawing.SIZE + 25, 2)
        mean = size * rng.uniform(*sizes)
        distance = np.hypot(placed[:, 0] - row, placed[:, 1] - column)
        if np.any(distance < near * (placed[:, 2] + mean)):
            continue
        placed = np.vstack([placed, (row, column, mean)])
        window, centre = _outline(rng, row, column, mean=mean, tilt=tilt, malignant=malignant)
        closer = centre < nearest[window]
        second[window] = np.where(closer, nearest[window], np.minimum(second[window], centre))
        nearest[window] = np.where(closer, centre, nearest[window])
        number[window] = np.where(closer, len(placed), number[window])
        radius[window] = np.where(closer, mean, radius[window])
        depth = radius * np.minimum(1 - nearest, (second - nearest - gap) / 2)
        if np.mean(depth > 0) > share:
            break
    inside = np.where(depth > 0, number, 0).astype(np.uint8)
    atypical = _minority(rng, inside)[number] != malignant
    rows, columns = np.gradient(-depth)
    return Glands(inside, atypical, depth, np.arctan2(rows, columns), nearest, radius)


def _outline(
    rng: np.random.Generator,
    row: float,
    column: float,
    *,
    mean: float,
    tilt: float,
    malignant: bool,
) -> tuple[Window, Float32[np.ndarray, "r c"]]:
    """A window around one gland and, there, the distance from its middle: 1 on its outline.

    The outline is an ellipse whose radius is modulated by a few random waves.
    """
    swing, stretch, height, waves = (0.8, 1.9, 0.19, 6) if malignant else (0.4, 1.45, 0.035, 3)
    reach = 2.2 * mean
    window = tuple(slice(max(int(p - reach), 0), max(int(p + reach), 0) + 1) for p in (row, column))
    dy, dx = drawing.ROWS[window] - row, drawing.COLUMNS[window] - column
    tilt, stretch = tilt + rng.normal(0, swing), np.sqrt(rng.uniform(1, stretch))
    along = (np.cos(tilt) * dx + np.sin(tilt) * dy) / stretch
    across = (np.cos(tilt) * dy - np.sin(tilt) * dx) * stretch
    angle = np.linspace(-np.pi, np.pi, 721)
    outline = np.ones_like(angle)
    for wave in range(2, waves + 1):
        amplitude = height * rng.standard_normal() / (wave - 1)
        outline += amplitude * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    outline = mean * np.clip(outline, 0.5, 1.6)
    turn = np.arctan2(across, along) / (2 * np.pi) + 0.5
    centre = np.hypot(along, across) / outline[(720 * turn).astype(int)]
    return window, centre.astype(np.float32)


def _minority(rng: np.random.Generator, number: UInt8[np.ndarray, "s s"]) -> Bool[np.ndarray, "n"]:
    """Random glands, by number, that together make up to about a quarter of the gland area."""
    area = np.bincount(number.ravel(), minlength=256)
    area[0] = 0
    order = rng.permutation(np.flatnonzero(area))
    share = np.cumsum(area[order]) / area.sum()
    wanted = np.argmin(np.abs(share - rng.uniform(0.05, 0.28)))
    return np.isin(np.arange(256), order[: wanted + 1])
