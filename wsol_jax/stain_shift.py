"""Classification and maps under other stains: a run's test images re-stained, style by style.

The stain shift of PixelCAM's figures 4, 5, 9 and 10, with the styles of `stain_styles.py`.
"""

import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from wsol_jax import (
    choices,
    evaluate,
    experiment,
    figures,
    files,
    map_kinds,
    predict,
    run_files,
    stain_styles,
    trained,
)
from wsol_jax.data import camelyon16, splits


class Style(NamedTuple):
    """The test images in the style of a reference, so many degrees from their own stains."""

    reference: str
    distance: float
    split: splits.Split


def run(
    config: Any, workdir: pathlib.Path, images: pathlib.Path, count: int, restaining: str
) -> dict[str, Any]:
    """Scores every map of a run on the test images as they are, then in other styles.

    Writes the scores to `stain_shift.json`, with the names of the test images whose stains cannot
    be estimated, which stay as they are, and draws `stain_shift.svg`.

    Args:
      images: folder with the reference images, which may lie in folders of it.
      count: of styles.
      restaining: one of `stain_styles.RESTAINING`.

    Raises:
      FileExistsError: the run is of another version of a method.
      FileNotFoundError: no reference images, or no run that is trained and evaluated.
      ValueError: the folder holds CAMELYON16's archives; the stains of too few reference images,
        or of no test image, can be estimated; or test images have no pixel labels.
    """
    choices.require("restaining", restaining, stain_styles.RESTAINING)
    paths, phases = _listed(images), trained.phases(config, workdir)
    if not (workdir / "metrics.json").is_file():
        raise FileNotFoundError(
            f"{workdir} is not evaluated; run: python -m wsol_jax.main --mode=evaluate "
            f"--workdir={workdir}"
        )
    test = experiment.open_split(config, "test")
    if not splits.is_annotated(test):
        raise ValueError(
            f"the test images of {config.data.name} have no pixel labels to score maps by; pass "
            "the --workdir of a run whose test images have masks"
        )
    matrix, estimated = stain_styles.median_stains(test)
    side, styles = config.image_size, [Style("", 0.0, test)]
    for path, distance in stain_styles.choose(paths, matrix, count=count, side=side).items():
        split = stain_styles.restained(test, stain_styles.square(path, side), restaining)
        styles.append(Style(path.relative_to(images).as_posix(), distance, split))
    numbers = {
        "restaining": restaining,
        "images": str(images),
        "median_stains": matrix.tolist(),
        "unchanged": [test.names[i] for i in np.flatnonzero(~estimated)],
        "checkpoints": {phase.title: phase.checkpoint for phase in phases},
        "styles": _scores(phases, styles, config.metric),
    }
    files.write_json(workdir / "stain_shift.json", numbers)
    with files.replacing(workdir / "stain_shift.svg") as scratch:
        scratch.write_bytes(_figure(numbers["styles"], run_files.read(workdir)))
    logging.info("stain shift: %s and .svg", workdir / "stain_shift.json")
    return numbers


def _listed(folder: pathlib.Path) -> list[pathlib.Path]:
    if (folder / camelyon16.MANIFEST).is_file():
        raise ValueError(
            f"the patches of {folder} are in archives, whose images are references once they are "
            f"unpacked: for f in {folder}/shards/*.zip; do unzip -q $f -x '*_mask.png' -d "
            "STYLES/$(basename $f .zip); done; then pass --images=STYLES"
        )
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in predict.SUFFIXES)
    if not paths:
        raise FileNotFoundError(
            f"no images under {folder} to take styles from; pass --images=FOLDER with files that "
            f"end in {predict.SUFFIXES}"
        )
    return paths


def _scores(
    phases: Sequence[trained.Phase], styles: Sequence[Style], metric: str
) -> list[dict[str, Any]]:
    """One row for each style: by phase and map, its score and the accuracy, in percent."""
    rows = [{"reference": s.reference, "distance": s.distance, "scores": {}} for s in styles]
    for phase in phases:
        of_styles = phase.scores(*(style.split for style in styles))
        for row, of_maps in zip(rows, of_styles, strict=True):
            row["scores"][phase.title] = {
                name: {metric: scores.maps[name].compute(), "accuracy": evaluate.accuracy(scores)}
                for name, scores in of_maps.items()
            }
            for name, found in row["scores"][phase.title].items():
                shown = "  ".join(f"{k} {v:.1f}" for k, v in found.items() if v is not None)
                logging.info("%.1f degrees  %s  %s  %s", row["distance"], phase.title, name, shown)
    return rows


def _figure(rows: Sequence[Mapping[str, Any]], run: run_files.Run) -> bytes:
    """A panel for each quantity, a line for each map of each phase, in the report's colours."""
    metric, scored, panels = map_kinds.metric_of(run), rows[0]["scores"], {}
    kinds = [kind for kind in map_kinds.of_run(run) if kind.name in scored.get(kind.phase, ())]
    for key, panel in ((metric, map_kinds.VALIDATION[metric]), ("accuracy", "accuracy")):
        lines = []
        for kind in kinds:
            values = [row["scores"][kind.phase][kind.name][key] for row in rows]
            lines.append(figures.Line(kind.place, kind.title, values))
        panels[panel] = [line for line in lines if None not in line.values]
    distances = [row["distance"] for row in rows]
    return figures.shift_figure(distances, {k: v for k, v in panels.items() if v})
