"""Drawn tissue in the colours of haematoxylin and eosin, with glands: data anyone has at once.

A typical gland has a row of basal nuclei, pale goblet cells and a small lumen; an atypical one has
large nuclei in disorder and a torn lumen with debris. Most glands of a benign image are typical,
round and apart; most of a malignant image are atypical, and all are irregular and crowded. The
object is every gland, so a map of the evidence for the class misses those of the other kind.
Stain, light and the share of gland vary per image and tell nothing of the class.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from wsol_jax.data import drawing, splits
from wsol_jax.data.drawing import SIZE, Field

CLASSES = ("benign", "malignant")
SPLITS = {"train": 64, "valcl": 16, "valpx": 6, "test": 48}  # examples


class Glands(NamedTuple):
    """Where the glands lie, per pixel.

    Attributes:
      number: of the pixel's gland, from 1; 0 outside. atypical: whether that gland is.
      depth: pixels to the gland's edge, negative outside. outward: the angle that leads there.
      centre: 0 in the gland's middle, 1 on its outline. radius: its mean radius in pixels.
    """

    number: UInt8[np.ndarray, "s s"]
    atypical: Bool[np.ndarray, "s s"]
    depth: Field
    outward: Field
    centre: Field
    radius: Field


class Stains(NamedTuple):
    """Concentration of both stains per pixel: about 1 in a nucleus and 0.5 in fibres."""

    haematoxylin: Field
    eosin: Field

    def covered(self, haematoxylin: Field | float, eosin: Field | float, cover: Field) -> "Stains":
        """Another layer laid over these where `cover` is 1, mixed in between."""
        return Stains(
            self.haematoxylin + (haematoxylin - self.haematoxylin) * cover,
            self.eosin + (eosin - self.eosin) * cover,
        )


def examples(split: str) -> tuple[splits.Example, ...]:
    """The examples of a split, benign and malignant in turn; `valpx` is the head of `valcl`."""
    splits.require_choice("split", split, tuple(SPLITS))
    source = "valcl" if split == "valpx" else split
    return tuple(
        splits.Example(f"{source}_{i:03d}", i % 2, functools.partial(draw, source, i))
        for i in range(SPLITS[split])
    )


def draw(split: str, index: int) -> splits.Picture:
    """Image and mask of gland numbers, 256 x 256: a function of its arguments. Odd: malignant."""
    rng = np.random.default_rng([list(SPLITS).index(split), index])
    glands = _glands(rng, malignant=bool(index % 2))
    stains = _stroma(rng, glands)
    stains = _typical(rng, glands, stains)
    stains = _atypical(rng, glands, stains)
    rim = np.exp(-np.square((glands.depth + 1.2) / 1.3))  # the basement membrane stays pale
    stains = stains.covered(0.0, 0.0, 0.5 * rim)
    return drawing.stained(rng, *stains), glands.number


def _glands(rng: np.random.Generator, *, malignant: bool) -> Glands:
    """Glands thrown onto the canvas until they cover a random share of it."""
    share, size, tilt = rng.uniform(0.36, 0.54), rng.uniform(34, 44), rng.uniform(0, np.pi)
    near, gap, sizes = (0.78, 0.06, (0.7, 1.35)) if malignant else (1.1, 0.16, (0.85, 1.2))
    placed = np.zeros((0, 3))
    nearest, second = np.full((2, SIZE, SIZE), 9, np.float32)  # of the glands' `centre`
    number, radius = np.zeros((SIZE, SIZE), np.uint8), np.ones((SIZE, SIZE), np.float32)
    while len(placed) < 40:
        row, column, mean = *rng.uniform(-25, SIZE + 25, 2), size * rng.uniform(*sizes)
        distance = np.hypot(placed[:, 0] - row, placed[:, 1] - column) / (placed[:, 2] + mean)
        if np.any(distance < near):
            continue
