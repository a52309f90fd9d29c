"""Styles for a split: references chosen by the distance of their stains, and images re-stained.

PixelCAM's stain shift takes ten styles of the other data set by their distance (figures 4, 5, 9 and
10) and does not say how; distance, choice and re-staining are ours.
"""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8

from wsol_jax import stains
from wsol_jax.data import pictures, splits

BATCH = 32  # images whose stains are estimated together
ESTIMATE = jax.jit(stains.estimate)
RESTAINING = {  # what is taken from a reference image, and how others are given it
    "macenko": (ESTIMATE, jax.jit(stains.macenko)),
    "reinhard": (jax.jit(stains.colours), jax.jit(stains.reinhard)),
}


def median_stains(
    split: splits.Split,
) -> tuple[Float[np.ndarray, "2 3"], Bool[np.ndarray, "n"]]:
    """The median stain matrix of a split, its rows of length 1, and whose stains are in it.

    ValueError where the stains of no image can be estimated.
    """
    matrices = np.full((split.size, 2, 3), np.nan)
    for batch in split.ordered(min(split.size, BATCH)):
        found = jax.device_get(ESTIMATE(batch["image"]).matrix)
        matrices[batch["index"][batch["valid"]]] = found[batch["valid"]]
    estimated = np.isfinite(matrices).all(axis=(1, 2))
    if not estimated.any():
        raise ValueError(
            f"the stains of none of {split.size} test images can be estimated; expected tissue in "
            "two stains, such as haematoxylin and eosin"
        )
    median = np.median(matrices[estimated], axis=0)
    return median / np.linalg.norm(median, axis=1, keepdims=True), estimated


def choose(
    paths: Sequence[pathlib.Path], matrix: Float[np.ndarray, "2 3"], *, count: int, side: int
) -> dict[pathlib.Path, float]:
    """So many references and their distances from a stain matrix, evenly from least to greatest.

    References are read as squares of `side` pixels. Those whose stains cannot be estimated are left
    out; ValueError where too few remain.
    """
    matrices = [jax.device_get(ESTIMATE(square(path, side)).matrix[0]) for path in paths]
    distances = stains.distance(np.stack(matrices), matrix)
    order = np.argsort(distances)[: np.isfinite(distances).sum()]  # NaN comes last
    if len(order) < count:
        raise ValueError(
            f"the stains of {len(order)} of {len(paths)} reference images can be estimated, but "
            f"--styles is {count}; pass more images of tissue in two stains, or fewer styles"
        )
    evenly = order[np.linspace(0, len(order) - 1, count).round().astype(int)]
    return {paths[i]: float(distances[i]) for i in evenly}


def restained(
    split: splits.Split, reference: UInt8[np.ndarray, "1 H W 3"], restaining: str
) -> splits.Split:
    """The split with its ordered images in the style of a reference; the shuffled ones stay.

    Args:
      restaining: one of `RESTAINING`.
    """
    describe, apply = RESTAINING[restaining]
    style = describe(reference)

    def ordered(batch_size, *, hosts=(0, 1)):
        for batch in split.ordered(batch_size, hosts=hosts):
            yield {**batch, "image": jax.device_get(apply(batch["image"], style))}

    return split._replace(ordered=ordered)


def square(path: pathlib.Path, side: int) -> UInt8[np.ndarray, "1 H W 3"]:
    """An image file as a square of `side` pixels."""
    image, _ = pictures.resize(pictures.read(path, None), pictures.Sizing(side))
    return image[None]
