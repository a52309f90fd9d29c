"""Pictures of maps: over their images, beside the truth, in files.

Arrays in, pixels out. Maps wear viridis, which is perceptually uniform and safe for colour-blind
readers.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from wsol_jax import pixel_labels

OPACITY = 0.75  # of a map where its value is 1
CONTOUR = (0, 0, 0)
UNKNOWN = (160, 160, 160)
BAND = 256  # rows that are drawn at a time


class Example(NamedTuple):
    """One image of a gallery: mask as in a batch, `maps` from column title to values in [0, 1]."""

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]
    maps: Mapping[str, Float[np.ndarray, "h w"]]


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    heat: Float[np.ndarray, "h w"],
    truth: Bool[np.ndarray, "h w"] | UInt8[np.ndarray, "h w"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """A map drawn over its image, clear where it is 0 and strongest where it is 1.

    Args:
      heat: values in [0, 1], higher means object.
      truth: 1 object; the object's border is drawn on top.
    """
    _require_range(heat)
    drawn = np.empty_like(image)
    for first in range(0, len(image), BAND):  # large images would take forty bytes a pixel
        rows = slice(first, first + BAND)
        drawn[rows] = _blended(image[rows], heat[rows].astype(np.float32))
    if truth is not None:
        drawn[border(truth == 1)] = CONTOUR
    return drawn


def border(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Object pixels with a background pixel above, below, left or right of them.

    The edge of the image is no border: what lies beyond is unknown.
    """
    padded = np.pad(mask, 1, constant_values=True)
    vertical = padded[:-2, 1:-1] & padded[2:, 1:-1]
    horizontal = padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~(vertical & horizontal)


def panels(example: Example) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """The pictures of one example by column: image, truth (as the perfect map), then each map.

    Where nobody has said what a pixel is, the truth is grey.
    """
    image, truth = example.image, example.mask == 1
    maps = {"truth": truth.astype(np.float32), **example.maps}
    drawn = {name: overlay(image, heat, truth) for name, heat in maps.items()}
    drawn["truth"][example.mask == pixel_labels.UNANNOTATED] = UNKNOWN
    return {"image": image, **drawn}


def legend() -> UInt8[np.ndarray, "8 256 3"]:
    """The colours of a map from 0 to 1, over white."""
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (8, 1))
    return overlay(np.full((8, 256, 3), 255, np.uint8), ramp)


def save_map_png16(path: str | pathlib.Path, heat: Float[np.ndarray, "h w"]) -> None:
    """Writes a map with values in [0, 1] as a 16-bit greyscale PNG of round(65535 * value)."""
    _require_range(heat)
    Image.fromarray(np.rint(65535 * heat.astype(np.float64)).astype(np.uint16)).save(path, "PNG")


def _require_range(heat):
    if not (heat.min() >= 0 and heat.max() <= 1):
        raise ValueError(f"map runs from {heat.min()} to {heat.max()}; expected values in [0, 1]")


def _blended(image, heat):
    color = _viridis()[np.rint(255 * heat).astype(np.intp)]
    strength = OPACITY * heat[..., None]
    return np.rint((1 - strength) * image + strength * color).astype(np.uint8)


@functools.cache
def _viridis() -> Float[np.ndarray, "256 3"]:
    """The colours of the values 0/255 ... 255/255, each 0 to 255."""
    import matplotlib

    return 255 * matplotlib.colormaps["viridis"](np.arange(256))[:, :3].astype(np.float32)
