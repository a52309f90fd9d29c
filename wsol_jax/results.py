"""The end of a run: the kept checkpoints on the test split, the floors, a few images to look at.

Everything goes into `metrics.json` and `gallery.npz`, from which the report is made.
"""

import copy
import logging
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from wsol_jax import evaluate, experiment, files, pixel_labels, published, selection
from wsol_jax.data import memory, pictures, splits

GALLERY = 8  # test images kept for the report, evenly over the classes
FLOOR = "mean_features"
SPLITS = {  # that are evaluated; max-min shows the sizes of the regions of all images
    "pxap": ("valcl", "valpx", "test"),
    "dice": ("seen", "valcl", "valpx", "test"),
}


def collect(
    config: Any, workdir: pathlib.Path, data: experiment.Data, phases: list[Any]
) -> dict[str, Any]:
    """Evaluates the phases of a finished run and writes `metrics.json` and `gallery.npz`.

    For every kind of map the last, B-CL and B-LOC checkpoints are reported, each with the threshold
    chosen on `valpx` and, beside it, the one best for the test images themselves; of what has no
    pixel labels, accuracy alone.
    """
    numbers = {
        "name": config.name,
        "data": experiment.keywords(config.data),
        "seed": config.seed,
        "images": {name: split.size for name, split in data._asdict().items() if split},
        "floors": floors(config, data, phases[0]) if splits.is_annotated(data.test) else {},
        "phases": {},
    }
    shown = _shown(data.test)
    gallery = {"name": np.array(shown.names), "label": shown.labels}
    gallery |= _squares(shown, config.image_size)
    for phase in phases:
        logging.info(
            "%s: evaluating its checkpoints on the %d test images", phase.title, data.test.size
        )
        maps, drawn = _phase_results(config, data, phase, shown)
        method = experiment.sections(config)[phase.title].method.name
        numbers["phases"][phase.title] = {"method": method, "maps": maps}
        gallery |= {f"map_{phase.title}_{name}": values for name, values in drawn.items()}
    with files.replacing(workdir / "gallery.npz") as path, path.open("wb") as file:
        np.savez_compressed(file, **gallery)
    files.write_json(workdir / "metrics.json", numbers)
    return numbers


def floors(config: Any, data: experiment.Data, phase: Any) -> dict[str, float]:
    """Test scores of maps that have learnt nothing of the task.

    PxAP: a constant map scores the share of foreground; the mean over the channels of the features
    that training begins with knows no label. Dice: F1+ of a map that is all foreground.
    """
    if config.metric == "dice":
        return {"all_foreground": _all_foreground(data.test)}
    section = {"name": "classifier", "readouts": (FLOOR,)}
    plain = copy.deepcopy(config)
    plain.head = {"name": "wgap"}  # of whatever the method has: the map does not see it
    untrained = experiment.build(plain, section)
    evaluator = evaluate.Evaluator(untrained, config.evaluation_batch_size)
    encoder = {k: {"encoder": v["encoder"]} for k, v in phase.start.items() if "encoder" in v}
    variables = experiment.transplant(experiment.zeros(config, untrained), encoder)
    scores = evaluator.scores(evaluator.place(variables), data.test)
    background, foreground = scores.maps[FLOOR].counts.sum(axis=1)
    return {
        "constant_map": float(100 * foreground / (background + foreground)),
        "mean_feature_map": scores.maps[FLOOR].compute(),
    }


def _phase_results(config, data, phase, shown):
    """Numbers of every map and checkpoint of a phase, and the maps of the images `shown`.

    Those are of the checkpoint that the papers report.
    """
    best = selection.Best(phase.folder)
    names = best.maps()
    reported = published.reported(config.metric, best.criteria())
    wanted = {(c, n): best.step(c, n) for n in names for c in best.criteria()}
    evaluated = {name: getattr(data, name) for name in SPLITS[config.metric]}
    evaluated = {name: split for name, split in evaluated.items() if split is not None}
    numbers, drawn = {name: {} for name in names}, {}
    for step in sorted(set(wanted.values())):
        variables = phase.evaluator.place(best.variables(step, phase.start))
        scores = {k: phase.evaluator.scores(variables, split) for k, split in evaluated.items()}
        at = {"epoch": best.epoch(step), "step": step}
        chosen = [key for key, at_step in wanted.items() if at_step == step]
        for criterion, name in chosen:
            numbers[name][criterion] = {**at, **_summary(scores, name)}
        names_shown = [name for criterion, name in chosen if criterion == reported]
        if names_shown:
            maps = phase.evaluator.maps(variables, shown)
            drawn |= {name: _full_size(maps[name], config) for name in names_shown}
    return numbers, drawn


def _full_size(maps, config):
    """Maps of any shape as squares of the size of evaluation."""
    size = (config.image_size, config.image_size)
    full = [evaluate.to_size(jnp.asarray(low)[None], size, config.metric)[0] for low in maps]
    return np.asarray(full, np.float16)


def _summary(scores, name):
    numbers, threshold = {"valcl": {"accuracy": evaluate.accuracy(scores["valcl"])}}, None
    if "valpx" in scores:
        chosen_on = scores["valpx"].maps[name]
        threshold = chosen_on.threshold()
        numbers["valpx"] = {
            chosen_on.name: chosen_on.compute(),
            "pixels": int(np.sum(chosen_on.pixels)),
            "threshold": threshold,
        }
    numbers["test"] = evaluate.summarize(scores["test"], name, threshold)
    if "seen" in scores:
        for split in ("seen", "valcl"):
            summary = evaluate.summarize(scores[split], name, threshold)
            numbers[split] = {key: summary.get(key) for key in ("accuracy", "regions")}
    return numbers


def _all_foreground(split):
    """Mean over the images that have foreground of 2 f / (1 + f), f its share."""
    f = [np.mean(row["mask"] == 1) for row in splits.rows(split)]
    return float(100 * np.mean([2 * share / (1 + share) for share in f if share > 0]))


def _shown(split):
    """A few images of each class, spread over the split, as a split of their own."""
    classes = [np.flatnonzero(split.labels == label) for label in np.unique(split.labels)]
    each = max(1, GALLERY // len(classes))
    spread = [np.linspace(0, len(rows) - 1, each) for rows in classes]
    chosen = [rows[np.unique(s.astype(int))] for rows, s in zip(classes, spread, strict=True)]
    wanted = np.sort(np.concatenate(chosen))
    kept = (row for row in splits.rows(split) if row["index"] in wanted)
    found = {int(row["index"]): (row["image"], row["mask"]) for row in kept}
    names, read = tuple(split.names[i] for i in wanted), (found[i] for i in wanted)
    return memory.serve(names, split.labels[wanted], read, window=len(names))


def _squares(split, side):
    """Images and masks of a split as squares, which may stand beside each other in a report."""
    own = [
        (row["image"], row["mask"] if np.any(row["mask"] != pixel_labels.UNANNOTATED) else None)
        for row in sorted(splits.rows(split), key=lambda row: row["index"])
    ]
    square = [pictures.resize(picture, pictures.Sizing(side)) for picture in own]
    images, masks = zip(*square, strict=True)
    return {"image": np.stack(images), "mask": np.stack(masks)}
