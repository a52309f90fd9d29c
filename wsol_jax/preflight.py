"""Whatever is wrong with the phases of a run, told before the first of them begins."""

import pathlib
from typing import Any

from wsol_jax import (
    choices,
    evaluate,
    experiment,
    identity,
    optimizer,
    parallel,
    pseudo_labels,
    selection,
)
from wsol_jax.method import Method


def checked(config: Any, workdir: pathlib.Path, *, train: bool) -> Method:
    """The method of the last phase, once all phases can be trained, or evaluated, as configured.

    Args:
      config: of the run at `workdir`, see `configs/`.
      train: False asks whether what is trained can be evaluated.

    Raises:
      FileExistsError, FileNotFoundError, ValueError: an unknown name, a number out of its range, a
        schedule that does not fit the model, or what is missing in the run of a baseline.
    """
    choices.require("metric", config.metric, evaluate.PROTOCOLS)
    choices.require_number("seed", config.seed)
    choices.require_number("evaluation_batch_size", config.evaluation_batch_size, least=1)
    for title, section in experiment.sections(config).items():
        choices.require_number(f"epochs of {title}", section.epochs)
        choices.require_number(f"batch_size of {title}", section.batch_size, least=1)
        parallel.check_batch(section.batch_size)
        method = experiment.build(config, section.method)
        params = experiment.zeros(config, method)["params"]
        optimizer.groups(params, section.optimizer.get("fast", ()))
        schedule = experiment.keywords(section.optimizer)
        optimizer.sgd(steps_per_epoch=1, frozen=method.frozen, **schedule)
        folder, epochs = identity.place(config, workdir, title)
        if not train:
            selection.Best(folder).require_end(epochs)
        elif section is config.baseline:
            _check_origin(config, folder, epochs)
    return method


def _check_origin(config, folder, epochs):
    """Refuses what the second phase asks of the first and would not find at its end."""
    section, learnt = config.baseline, ["weights_checkpoint"]
    for key in ("cam_checkpoint", "weights_checkpoint"):
        choices.require(f"baseline.{key}", section[key], selection.CRITERIA)
    if section.cam_workdir:
        known = experiment.stored_config(pathlib.Path(section.cam_workdir)).num_classes
        if known < config.num_classes:
            raise ValueError(
                f"the run at {section.cam_workdir} knows {known} classes and can make no CAM of "
                f"the others; expected the {config.num_classes} of this config"
            )
        pseudo_labels.teacher(section)
    else:
        choices.require("baseline.cam", section.cam, experiment.map_names(section.method))
        learnt.append("cam_checkpoint")
    if section.workdir:
        best = selection.Best(folder)
        best.require_end(epochs)
        for key in learnt:
            best.step(section[key], section.cam)
