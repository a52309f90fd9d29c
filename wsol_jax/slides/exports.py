"""Maps of slides in the formats that viewers open: a pyramid of pixels, and outlines.

Values are of 8 bits, 0 where nothing was looked at. OpenSlide opens the pyramid; the outlines have
QuPath's properties, and their places are pixels of the slide's level 0, counted from its corner or,
as QuPath does where a slide has bounds (MRXS, SCN, BIF), from theirs.
"""

import itertools
import math
import pathlib
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from wsol_jax.slides import reader

TILE = 256
COARSEST = 512  # pixels along the longer side, at most, of the pyramid's last level
OUTLINED = 8192  # and of the level that is outlined
COLOR = (200, 60, 0)

Values = UInt8[np.ndarray, "rows columns"]


def write_pyramid(file: pathlib.Path, values: Values, *, mpp: tuple[float, float]) -> None:
    """Writes a map as a tiled TIFF, each level half as large as the one before.

    Args:
      mpp: microns along a value, horizontally and vertically.

    Raises:
      ImportError: tifffile is not installed.
    """
    with require_tifffile().TiffWriter(file, bigtiff=True) as writer:
        level = 0
        while True:
            writer.write(
                values,
                tile=(TILE, TILE),
                photometric="minisblack",
                compression="zlib",
                resolution=tuple(10_000 / (microns * 2**level) for microns in mpp),
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),
                metadata=None,
            )
            if max(values.shape) <= COARSEST:
                return
            values, level = _half(values), level + 1


def require_tifffile() -> ModuleType:
    """tifffile's module, or an ImportError that names the extra that it comes with."""
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(
            f"writing maps of slides needs tifffile ({error}): {reader.EXTRA}"
        ) from None
    return tifffile


def least(threshold: float) -> int:
    """The smallest value of a region, of maps at or above a threshold in [0, 1]; not 0."""
    return max(1, math.ceil(255 * threshold))


def outlines(
    values: Values,
    threshold: float,
    *,
    cell: float,
    size: tuple[int, int],
    mpp: tuple[float, float],
    origin: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """The regions at or above a threshold as GeoJSON, a polygon each, with holes.

    Lines run along the borders of the region's cells, across its corners. A map too large to be
    outlined whole is outlined at half its size, or a quarter, and so on.

    Args:
      cell: level-0 pixels along a value.
      size: width and height of the slide in level-0 pixels, where outlines end.
      mpp: microns along a level-0 pixel, horizontally and vertically.
      origin: the level-0 pixel, x and y, that places are counted from.
    """
    import contourpy  # which matplotlib depends on

    while max(values.shape) > OUTLINED:
        values, cell = _half(values), 2 * cell
    region = np.pad(values >= least(threshold), 1).astype(np.float32)
    polygons, ends = contourpy.contour_generator(z=region, fill_type="OuterOffset").filled(0.5, 2)
    features = []
    for points, offsets in zip(polygons, ends, strict=True):
        places = np.clip((points - 0.5) * cell, 0, size)  # from middles in the padded map
        rings = [places[a:b] for a, b in itertools.pairwise(offsets)]
        square_mm = abs(sum(map(_area, rings))) * mpp[0] * mpp[1] / 1e6
        shown = [(ring - origin).round(1).tolist() for ring in rings]
        features.append(_feature(shown, square_mm))
    return {"type": "FeatureCollection", "features": features}


def _feature(rings, square_mm):
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": "ROI", "color": list(COLOR)},
            "measurements": {"area_mm2": round(square_mm, 6)},
        },
    }


def _half(values: Values) -> UInt8[np.ndarray, "_ _"]:
    return np.asarray(Image.fromarray(values).reduce(2))


def _area(ring: Float64[np.ndarray, "n 2"]) -> float:
    """Signed: holes run the other way round."""
    x, y = ring.T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)
