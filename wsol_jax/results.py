"""The end of a run: the kept checkpoints on the test split, the floors, a few images to look at.

Everything goes into `metrics.json` and `gallery.npz`, which is all that the report reads.
"""

import logging
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from wsol_jax import evaluate, experiment, logbook, metrics, selection

GALLERY = 8  # test images kept for the report, evenly over the classes
FLOOR = "mean_features"


def collect(
    config: Any, workdir: pathlib.Path, data: experiment.Data, phases: list[Any]
) -> dict[str, Any]:
    """Evaluates the phases of a finished run and writes `metrics.json` and `gallery.npz`.

    For every kind of map the last, B-CL and B-LOC checkpoints are reported, each with the threshold
    chosen on `valpx` and, beside it, the one best for the test images themselves.
    """
    numbers = {
        "name": config.name,
        "data": experiment.keywords(config.data),
        "seed": config.seed,
        "floors": floors(config, data, phases[0]),
        "phases": {},
    }
    gallery = _pictures(data.test)
    for phase in phases:
        logging.info(
            "%s: evaluating its checkpoints on the %d test images", phase.name, data.test.size
        )
        title = "baseline" if phase is not phases[-1] else phase.name
        maps, drawn = _phase_results(config, data, phase, gallery["index"])
        numbers["phases"][title] = {"method": phase.name, "maps": maps}
        gallery |= {f"map_{title}_{name}": values for name, values in drawn.items()}
    with logbook.replacing(workdir / "gallery.npz") as path, path.open("wb") as file:
        np.savez_compressed(file, **gallery)
    logbook.write_json(workdir / "metrics.json", numbers)
    return numbers


def floors(config: Any, data: experiment.Data, phase: Any) -> dict[str, float]:
    """Test PxAP of maps that have learnt nothing of the task.

    A constant map scores the share of foreground; the mean over the channels of the features that
    training begins with knows no label.
    """
    section = {"name": "classifier", "readouts": (FLOOR,)}
    untrained = experiment.build(config, section)
    evaluator = evaluate.Evaluator(untrained, config.evaluation_batch_size)
    variables = experiment.transplant(experiment.initialize(config, untrained), phase.start)
    scores = evaluator.scores(evaluator.place(variables), data.test)
    background, foreground = scores.pxap[FLOOR].counts.sum(axis=1)
    return {
        "constant_map": float(100 * foreground / (background + foreground)),
        "mean_feature_map": scores.pxap[FLOOR].compute(),
    }


def _phase_results(config, data, phase, shown):
    """Numbers of every map and checkpoint of a phase, and its B-LOC maps of the images `shown`."""
    best = selection.load(phase.folder)
    evaluator = evaluate.Evaluator(phase.method, config.evaluation_batch_size)
    names = best.maps()
    wanted = {(c, n): best.step(c, n) for n in names for c in selection.CRITERIA}
    numbers = {name: {} for name in names}
    drawn = {}
    for step in sorted(set(wanted.values())):
        variables = evaluator.place(best.variables(step, phase.start))
        scores = {
            s: evaluator.scores(variables, getattr(data, s)) for s in ("valcl", "valpx", "test")
        }
        for (criterion, name), at in wanted.items():
            if at == step:
                numbers[name][criterion] = {
                    "epoch": best.epoch(step),
                    "step": step,
                    **_summary(scores, name),
                }
                if criterion == "b_loc":
                    low = evaluator.maps(variables, data.test)[name][shown]
                    size = (config.image_size, config.image_size)
                    drawn[name] = np.asarray(evaluate.to_size(jnp.asarray(low), size), np.float16)
    return numbers, drawn


def _summary(scores, name):
    threshold = metrics.best_threshold(scores["valpx"].pxap[name].counts)
    return {
        "valcl": {"accuracy": scores["valcl"].accuracy.compute()},
        "valpx": {"pxap": scores["valpx"].pxap[name].compute()},
        "test": evaluate.summarize(scores["test"], name, threshold),
    }


def _pictures(split):
    """A few images of each class, spread over the split."""
    classes = [np.flatnonzero(split.labels == label) for label in np.unique(split.labels)]
    each = max(1, GALLERY // len(classes))
    chosen = [
        rows[np.linspace(0, len(rows) - 1, min(each, len(rows))).astype(int)] for rows in classes
    ]
    index = np.concatenate(chosen)
    images, masks = {}, {}
    for batch in split.ordered(min(split.size, 32)):
        for row, position in enumerate(batch["index"]):
            if batch["valid"][row] and position in index:
                images[position], masks[position] = batch["image"][row], batch["mask"][row]
    return {
        "index": index,
        "name": np.array([split.names[i] for i in index]),
        "label": split.labels[index],
        "image": np.stack([images[i] for i in index]),
        "mask": np.stack([masks[i] for i in index]),
    }
