"""The CAMs a pixel classifier learns from: a trained model's true-class maps of the training set.

They are kept at feature resolution in float16, about 1.6 kB an image, in one array on the disk, and
come to the size of the training images in one step. The released code has SAT's, which are of 14²,
at 224² first.
"""

import logging
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float16

from wsol_jax import evaluate, files, parallel, run_files, selection, trained
from wsol_jax.data import splits


def of_run(
    config: Any, workdir: pathlib.Path, baseline: Any, seen: splits.Split, images: str
) -> Float16[np.ndarray, "n h w"]:
    """The CAMs of a run's training images, by its first phase at B-LOC, or as configured.

    They are made once and kept in `workdir`.

    Args:
      baseline: the first phase, a `train.Phase`.
      images: their `identity.fingerprint`.
    """
    section, path = config.baseline, workdir / "cams.npy"
    evaluator, best, like = baseline.evaluator, selection.Best(baseline.folder), baseline.start
    if section.cam_workdir:
        other = teacher(section)
        evaluator, best, like = other.evaluator, other.best, other.like
    step = best.step(section.cam_checkpoint, section.cam)
    origin = {"map": section.cam, "step": step, "images": images}
    maps = load(path, origin)
    if any(parallel.gather(maps is None)):  # all processes make them, or none
        logging.info("CAMs of the training images: %s, step %d", section.cam, step)
        maps = cams(evaluator, best.variables(step, like), seen, section.cam)
        save(path, maps, origin)
    return maps


def teacher(section: Any) -> trained.Phase:
    """The phase of another run that makes the CAMs; ValueError where it has no such map.

    Args:
      section: of a config, which describes the first phase and names the other run.
    """
    found = trained.first_phase(pathlib.Path(section.cam_workdir))
    found.best.step(section.cam_checkpoint, section.cam)
    return found


def cams(
    evaluator: evaluate.Evaluator, variables: Any, split: splits.Split, name: str
) -> Float16[np.ndarray, "n h w"]:
    """Maps in [0, 1] of every image of `split` for its true class, in the order of the split.

    Args:
      name: of the map, as the method's `localize` calls it.
    """
    return evaluator.maps(evaluator.place(variables), split)[name]


def save(path: pathlib.Path, maps: Float16[np.ndarray, "n h w"], origin: dict[str, Any]) -> None:
    """Writes the maps and, into a JSON file beside them, where they come from.

    That comes last: maps without it are not taken for whole.
    """
    files.write_json(_origin_path(path), {})  # which is not what earlier maps were
    with files.replacing(path) as scratch, scratch.open("wb") as file:
        np.save(file, maps)
    files.write_json(_origin_path(path), origin)


def load(path: pathlib.Path, origin: dict[str, Any]) -> Float16[np.memmap, "n h w"] | None:
    """Maps saved with this very origin, read from the disk as they are used, or None."""
    found = run_files.read_json(_origin_path(path))
    if not found or not path.is_file():
        return None
    if found != origin:
        logging.info("%s was made from another checkpoint or set; making it anew", path)
        return None
    return np.load(path, mmap_mode="r")


def _origin_path(path):
    return path.with_suffix(".json")
