"""Tissue and glass, told apart by colour: the rule of the published CAMELYON16 patches.

A pixel is tissue where it is not brighter than Otsu's threshold in all of red, green and blue, and
more saturated than Otsu's threshold, and not black:
  not (R > t_R and G > t_G and B > t_B) and S > t_S and min(R, G, B) > rgb_min.
Ink of a pen passes for tissue, as in the published patches; the picture shows it.
"""

import math
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image, ImageDraw

from wsol_jax.slides import reader

TISSUE_MIN = 0.1  # share of tissue from which the published protocol takes a patch
WRITTEN_RGB_MIN = 10  # the default of the released function
# Its callers pass TISSUE_MIN in that place, so that only pixels with a channel of 0 are left out.
RELEASED_RGB_MIN = 0.1
BINS = 256
# Otsu's rule parts any two values, the noise of blank glass too: means of its two classes that are
# nearer than this (of 255 grey levels; of the range [0, 1] of saturation) are no contrast.
CONTRAST, SATURATION_CONTRAST = 10.0, 0.04
GLASS, GLASS_SATURATION = 220.0, 0.05  # thresholds in their place: glass is bright and colourless
OUTLINE, FRAME = (0, 160, 60), (200, 60, 0)

RGB = UInt8[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]


class Thresholds(NamedTuple):
    """Thresholds of tissue: of red, green and blue in [0, 255], and of saturation in [0, 1]."""

    red: float
    green: float
    blue: float
    saturation: float


def thresholds(rgb: RGB) -> Thresholds:
    """Otsu's thresholds of a picture; fixed ones where a channel shows no two kinds of pixels.

    The published patches took them from a row of windows for patches of tumor, and for normal ones
    from the whole slide at level 6, then again from the patch.
    """
    channels = [_threshold(rgb[..., i], CONTRAST, GLASS) for i in range(3)]
    return Thresholds(*channels, _threshold(saturation(rgb), SATURATION_CONTRAST, GLASS_SATURATION))


def tissue(
    rgb: RGB, limits: Thresholds | None = None, *, rgb_min: float = RELEASED_RGB_MIN
) -> Mask:
    """Where a picture shows tissue.

    Args:
      limits: thresholds of a larger picture, say of the whole slide; the picture's own where None.
      rgb_min: grey level that all three channels must exceed: `RELEASED_RGB_MIN`, what the
        published patches were cut with, or `WRITTEN_RGB_MIN`, what was meant.
    """
    limits = thresholds(rgb) if limits is None else limits
    red, green, blue = np.moveaxis(rgb, -1, 0)  # NumPy is slow along an axis of three
    glass = (red > limits.red) & (green > limits.green) & (blue > limits.blue)
    dark = np.minimum(np.minimum(red, green), blue) <= rgb_min
    return ~glass & ~dark & (saturation(rgb) > limits.saturation)


def saturation(rgb: RGB) -> Float[np.ndarray, "h w"]:
    """Saturation of HSV, (max - min) / max of the three channels; 0 where all are 0."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    return (high - low) / np.maximum(high, 1).astype(np.float64)


def otsu(values: Shaped[np.ndarray, "..."]) -> tuple[float, float]:
    """The threshold that parts values best, and the distance between the means of both sides.

    Otsu 1979: of all thresholds, the first that maximises w0 w1 (m1 - m0)^2, with the share and
    mean of the values at or below (0) and above it (1). Thresholds are whole numbers for integer
    values, and centres of 256 equal bins for real ones. One value alone gives itself and 0.
    """
    flat = values.ravel()
    if np.issubdtype(values.dtype, np.integer):
        counts = np.bincount(flat).astype(np.float64)
        levels = np.arange(len(counts))
    else:
        counts, edges = np.histogram(flat, BINS)
        levels = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    sums = np.cumsum(counts * levels)
    above = flat.size - below
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    distance = np.where((below > 0) & (above > 0), means[1] - means[0], 0.0)
    between = below * above * distance**2
    if not between.any():
        return float(flat[0]), 0.0
    best = int(np.argmax(between))
    return float(levels[best]), float(distance[best])


def write_picture(
    slide: reader.Slide,
    file: str | pathlib.Path,
    *,
    windows: Iterable[tuple[int, int, int, int]] = (),
    side: int = 1024,
) -> float:
    """Writes a PNG of the whole slide with its tissue outlined; returns the share of tissue.

    Args:
      windows: left, top, width and height, in level-0 pixels, of what is framed in it.
      side: pixels of the picture's longer side.
    """
    rgb, downsample = reader.overview(slide, side=side)
    found = tissue(rgb)
    picture = Image.fromarray(outlined(rgb, found))
    draw = ImageDraw.Draw(picture)
    for left, top, width, height in windows:
        corners = left, top, left + width - 1, top + height - 1
        draw.rectangle([math.floor(place / downsample) for place in corners], outline=FRAME)
    picture.save(file, format="PNG")
    return float(found.mean())


def outlined(rgb: RGB, mask: Mask) -> RGB:
    """The picture with the rim of the mask in green: its pixels that touch the outside."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.where((mask & ~inner)[..., None], np.array(OUTLINE, np.uint8), rgb)


def _threshold(values: Shaped[np.ndarray, "h w"], contrast: float, otherwise: float) -> float:
    threshold, distance = otsu(values)
    return threshold if distance >= contrast else otherwise
