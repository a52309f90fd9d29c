"""The CAMs a pixel classifier learns from: a trained model's true-class maps of the training set.

They are kept at feature resolution in float16, about 1.6 kB an image, in one array.
"""

import logging
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float16

from wsol_jax import evaluate, logbook
from wsol_jax.data import splits


def cams(
    evaluator: evaluate.Evaluator, variables: Any, split: splits.Split, name: str
) -> Float16[np.ndarray, "n h w"]:
    """Maps in [0, 1] of every image of `split` for its true class, in the order of the split.

    Args:
      name: of the map, as the method's `localize` calls it.
    """
    return evaluator.maps(evaluator.place(variables), split)[name]


def save(path: pathlib.Path, maps: Float16[np.ndarray, "n h w"], origin: dict[str, Any]) -> None:
    """Writes the maps and where they come from, whole or not at all."""
    with logbook.replacing(path) as scratch, scratch.open("wb") as file:
        np.savez(file, maps=maps, origin=np.array(repr(sorted(origin.items()))))


def load(path: pathlib.Path, origin: dict[str, Any]) -> Float16[np.ndarray, "n h w"] | None:
    """Maps saved with this very origin, or None."""
    if not path.is_file():
        return None
    stored = np.load(path)
    if str(stored["origin"]) != repr(sorted(origin.items())):
        logging.info("%s was made from another checkpoint or set; making it anew", path)
        return None
    return stored["maps"]
