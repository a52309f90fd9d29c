"""A folder of images of any size -> maps, overlays and a table, by a trained run."""

import collections
import csv
import functools
import hashlib
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from wsol_jax import (
    augment,
    evaluate,
    experiment,
    files,
    metrics,
    ops,
    run_files,
    trained,
    visualize,
)
from wsol_jax.data import pictures

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
WRITTEN = (".npy", ".png", "_overlay.png")  # of each image
TABLE, PARTIAL = "predictions.csv", ".predictions.csv.part"
COLUMNS = ("image", "class", "probability", "foreground", "threshold")


class Localizer(NamedTuple):
    """A trained phase at one checkpoint.

    Attributes:
      localize: images (b h w 3) of 8 bits -> probabilities of the classes (b k), None where images
        are not classified, and maps (b i j) in [0, 1] of the likeliest class.
      threshold: of the maps, chosen on the validation images.
      origin: which map and checkpoint it is, in words.
      weights: SHA-256 of the weights, as hexadecimal digits.
    """

    localize: Callable[..., tuple]
    threshold: float
    origin: str
    weights: str


def run(
    config: Any, workdir: pathlib.Path, images: pathlib.Path, output: pathlib.Path, checkpoint: str
) -> list[dict[str, Any]]:
    """Maps every image of a folder, for its predicted class, at the image's own size.

    Writes for each image `<stem>.npy` (float32 in [0, 1]), `<stem>.png` (the same, 16 bits) and
    `<stem>_overlay.png`; and, image by image, `predictions.csv` with the class, its probability and
    the share of pixels above the threshold, chosen on the validation images, or 0.5 where these
    have no pixel labels; one of an earlier call stands until there is all of the new. A method that
    does not classify images leaves the class blank.

    Args:
      images: folder with files that end in one of `SUFFIXES`.
      output: another folder.
      checkpoint: "last", "b_cl" or "b_loc"; where empty, the one whose numbers are reported.

    Raises:
      FileExistsError: the run is of another version of its method, or the output holds files of
        these names that no earlier prediction wrote.
      FileNotFoundError: no images, or no trained run.
      ValueError: a file is not a readable image, two would have maps of one name, or the run is not
        trained to its end; before anything is written.
    """
    if output.resolve() == images.resolve():
        raise ValueError(
            f"the output {output} is the folder of the images, which maps of the same names would "
            "replace; pass another --output"
        )
    paths = _listed(images)
    _require_free(output, paths)
    found = localizer(config, workdir, checkpoint)
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    growing = output / (PARTIAL if (output / TABLE).is_file() else TABLE)
    with growing.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        table.writeheader()
        for path in paths:
            rows.append(_map_image(path, found, config, output))
            table.writerow(rows[-1])
            stream.flush()
    os.replace(growing, output / TABLE)
    logging.info("%d maps by %s under %s", len(rows), found.origin, output)
    return rows


def localizer(config: Any, workdir: pathlib.Path, checkpoint: str = "") -> Localizer:
    """What the last phase of a run makes of images.

    Args:
      checkpoint: "last", "b_cl" or "b_loc"; where empty, the one whose numbers are reported.

    Raises:
      FileExistsError: the run is of another version of its method.
      FileNotFoundError: there is no trained run, or it is not evaluated.
      ValueError: the run chose no such checkpoint, or is not trained to its end.
    """
    phase = trained.phase(config, workdir, config.method.name)
    best, method, (name, *_) = phase.best, phase.method, experiment.map_names(config.method)
    checkpoint = checkpoint or phase.checkpoint
    step = best.step(checkpoint, name)

    @jax.jit
    @ops.in_single_precision
    def localize(variables, image):
        view = augment.eval_view({"image": image}, **method.normalization)
        logits, maps = method.localize(variables, view["image"])
        return None if logits is None else jax.nn.softmax(logits), maps[name]

    variables, digest = best.variables(step, phase.like), hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        digest.update(np.ascontiguousarray(leaf))
    return Localizer(
        functools.partial(localize, jax.device_put(variables)),
        _threshold(workdir, config.method.name, name, checkpoint),
        f"{name} at step {step} ({checkpoint})",
        digest.hexdigest(),
    )


def _map_image(path, found, config, output):
    """Writes the map of one image, and returns its row of the table."""
    picture = pictures.read_image(path)
    small = picture.resize(_seen_size(picture, config), Image.Resampling.BILINEAR)
    probabilities, low = found.localize(np.asarray(small)[None])
    heat = np.asarray(evaluate.to_size(low, picture.size[::-1], config.metric)[0])
    _write(output / path.stem, np.asarray(picture), heat)
    image_class = ("", "")
    if probabilities is not None:
        image_class = int(np.argmax(probabilities)), float(np.max(probabilities))
    share = float(np.mean(heat >= found.threshold))
    values = (path.name, *image_class, share, found.threshold)
    return dict(zip(COLUMNS, values, strict=True))


def _require_free(output, paths):
    """Raises FileExistsError where maps would replace files that are none of ours."""
    if (output / TABLE).is_file():
        return
    names = [f"{path.stem}{end}" for path in paths for end in WRITTEN]
    there = [name for name in names if (output / name).exists()]
    if there:
        raise FileExistsError(
            f"{output} holds {there[:3]}, which the maps would replace, and no {TABLE} of an "
            "earlier prediction; pass another --output"
        )


def _listed(folder: pathlib.Path) -> list[pathlib.Path]:
    """The images of a folder, each seen to be one, no two with the same stem."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; pass --images=FOLDER with {SUFFIXES} files")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        inside = {path.parent for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES}
        told = f", though in {len(inside)} folders of it: map those one by one" if inside else ""
        raise FileNotFoundError(
            f"no images in {folder}{told}; expected files that end in {SUFFIXES}"
        )
    for path in paths:
        pictures.read_image(path)
    written = collections.Counter(f"{path.stem}{end}" for path in paths for end in WRITTEN)
    twice = sorted(name for name, count in written.items() if count > 1)
    if twice:
        raise ValueError(
            f"several images of {folder} would be mapped to {twice[:5]}; rename some, or map them "
            "in folders of their own"
        )
    return paths


def _seen_size(picture, config):
    """Width and height at which the run evaluated its images."""
    own, sizing = picture.size[::-1], experiment.evaluation_sizing(config)
    (height, width), _ = pictures.shapes(own, own, sizing)
    return width, height


def _threshold(workdir, phase, name, checkpoint):
    """The operating point that the run chose on its validation images."""
    path = workdir / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist, so no threshold has been chosen; run: "
            f"python -m wsol_jax.main --mode=evaluate --workdir={workdir}"
        )
    numbers = run_files.read_json(path)["phases"][phase]["maps"][name][checkpoint]
    if "valpx" not in numbers:
        logging.warning("without pixel labels no threshold was chosen: shares are at 0.5")
        return metrics.BOUNDARY
    if "threshold" not in numbers["valpx"]:
        raise ValueError(
            f"{path} is of an earlier version, which kept no threshold; run: "
            f"python -m wsol_jax.main --mode=evaluate --workdir={workdir}"
        )
    return numbers["valpx"]["threshold"]


def _write(stem: pathlib.Path, image: UInt8[np.ndarray, "H W 3"], heat: Float[np.ndarray, "H W"]):
    array, picture, overlay = (stem.with_name(f"{stem.name}{end}") for end in WRITTEN)
    with files.replacing(array) as scratch, scratch.open("wb") as stream:
        np.save(stream, heat)
    with files.replacing(picture) as scratch:
        visualize.save_map_png16(scratch, heat)
    with files.replacing(overlay) as scratch:
        Image.fromarray(visualize.overlay(image, heat)).save(scratch, "PNG")
