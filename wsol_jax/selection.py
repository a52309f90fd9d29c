"""Which checkpoint counts: best classification (B-CL), best localization (B-LOC) and the last.

After every epoch, and before the first, label accuracy is measured on `valcl` and the metric of the
maps on the few pixel-labelled images of `valpx`, if there are any; the best of each is kept, ties
going to the latest epoch.
"""

import dataclasses
import logging
import pathlib
import time
from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from wsol_jax import checkpoint, choices, evaluate, experiment, files, logbook, ops, visualize
from wsol_jax.data import splits

CRITERIA = ("last", "b_cl", "b_loc")
OVERLAYS = 4  # validation images shown in TensorBoard


@dataclasses.dataclass
class Memory:
    """What training remembers beside its state.

    Attributes:
      history: one row of numbers per evaluated epoch.
      best: criterion -> {"epoch", "step", "value"}; a B-LOC criterion is "b_loc/<map>".
      losses: of the steps since the last row of the history.
      maps: names of the maps that the phase makes.
    """

    history: list = dataclasses.field(default_factory=list)
    best: dict = dataclasses.field(default_factory=dict)
    losses: list = dataclasses.field(default_factory=list)
    maps: list = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)

    def keep_best_of(self, steps: Collection[int]) -> None:
        """Forgets the best checkpoints that are not among `steps`, see `Checkpoints.save`."""
        self.best = {name: entry for name, entry in self.best.items() if entry["step"] in steps}

    def best_steps(self) -> set[int]:
        """Steps whose checkpoints must be kept."""
        return {entry["step"] for entry in self.best.values()}


class Validation:
    """Judges a phase's variables after an epoch, and writes history and TensorBoard."""

    def __init__(self, phase: Any, config: Any, data: experiment.Data):
        self._phase, self._data = phase, data
        self._metric = config.metric
        self._per_epoch = splits.steps_per_epoch(data.train.size, phase.batch_size)
        self._board = logbook.Board(phase.folder)
        self._began = time.monotonic()

    def judge(self, variables: Any, memory: Memory, step: int) -> bool:
        """Adds a row to the memory's history; True if they are the best by some criterion.

        Args:
          variables: of the model, on the devices, at the end of an epoch.
          step: the last one of that epoch; 0 before the first.
        """
        classified = self._phase.evaluator.scores(variables, self._data.valcl)
        accuracy = evaluate.accuracy(classified)
        values = {} if accuracy is None else {"b_cl": accuracy}
        memory.maps = list(classified.maps)
        if self._data.valpx is not None:
            localized = self._phase.evaluator.scores(variables, self._data.valpx)
            values |= {f"b_loc/{name}": localized.maps[name].compute() for name in memory.maps}
        row = {"epoch": step // self._per_epoch, "step": step, "seconds": self._seconds(memory)}
        row |= _means(memory.losses)
        row |= {self._title(criterion): value for criterion, value in values.items()}
        memory.losses.clear()
        memory.history.append(row)
        improved = _update(memory.best, values, row)
        self._write(memory, row, variables)
        return improved

    def close(self) -> None:
        """Flushes TensorBoard."""
        self._board.close()

    def _seconds(self, memory):
        before = memory.history[-1]["seconds"] if memory.history else 0.0
        elapsed, self._began = time.monotonic() - self._began, time.monotonic()
        return round(before + elapsed, 2)

    def _write(self, memory, row, variables):
        numbers = {k: v for k, v in row.items() if k not in ("epoch", "step", "seconds")}
        logging.info(
            "%s  epoch %d/%d  %s  (%s)",
            *(self._phase.title, row["epoch"], self._phase.epochs),
            "  ".join(f"{name} {value:.4g}" for name, value in numbers.items()),
            logbook.duration(row["seconds"]),
        )
        files.write_lines(self._phase.folder / "history.jsonl", memory.history)
        self._board.scalars(row["step"], numbers)
        if row["epoch"] in (0, self._phase.epochs):
            self._board.images(row["step"], self._overlays(variables))

    def _title(self, criterion):
        if criterion == "b_cl":
            return "valcl/accuracy"
        return f"valpx/{self._metric}/{criterion.removeprefix('b_loc/')}"

    def _overlays(self, variables):
        shown = self._data.valcl if self._data.valpx is None else self._data.valpx
        maps = self._phase.evaluator.maps(variables, shown)
        batch = next(shown.ordered(min(OVERLAYS, shown.size)))
        valid, shape = batch["valid"], batch["image"].shape[1:3]  # masks may have another
        images, truth = batch["image"][valid], jax.numpy.asarray(batch["mask"][valid])
        masks = np.asarray(ops.resize_nearest(truth, shape))
        pictures = {}
        for name, values in maps.items():
            low = np.stack([values[i] for i in batch["index"][valid]])
            heat = np.asarray(evaluate.to_size(jax.numpy.asarray(low), shape, self._metric))
            rows = zip(images, heat, masks, strict=True)
            pictures[name] = np.stack([visualize.overlay(i, h, truth=m) for i, h, m in rows])
        return pictures


class Best:
    """The checkpoints that the phase in `folder` keeps; FileNotFoundError where it has none."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        there, self._newest = folder / "checkpoints", None
        if there.is_dir():
            self._checkpoints = checkpoint.Checkpoints(there, read_only=True)
            self._newest = self._checkpoints.latest()
        if self._newest is None:
            raise FileNotFoundError(
                f"no checkpoints under {folder}; expected a trained phase, which "
                "python -m wsol_jax.main --config=... --workdir=... makes"
            )
        self._memory = Memory(**self._checkpoints.memory(self._newest))

    def require_end(self, epochs: int) -> None:
        """Raises ValueError where the phase has been trained for less than so many epochs."""
        reached = self.epoch(self._newest)
        if reached < epochs:
            raise ValueError(
                f"{self.folder} is trained for {reached} of its {epochs} epochs; bring it to its "
                f"end first: python -m wsol_jax.main --workdir={self.folder.parent}"
            )

    def maps(self) -> list[str]:
        """Names of the maps the phase makes."""
        validated = [k.removeprefix("b_loc/") for k in self._memory.best if k.startswith("b_loc/")]
        return self._memory.maps or validated  # runs before there was a list of them

    def criteria(self) -> list[str]:
        """The criteria that chose a checkpoint.

        Not "b_cl" where images are not classified, nor "b_loc" without pixel-labelled images.
        """
        chosen = {"last", *(criterion.partition("/")[0] for criterion in self._memory.best)}
        return [criterion for criterion in CRITERIA if criterion in chosen]

    def step(self, criterion: str, name: str) -> int:
        """Training step of "last", "b_cl" or "b_loc", the latter by the map called `name`."""
        choices.require("checkpoint", criterion, CRITERIA)
        if criterion == "last":
            return self._newest
        key = f"b_loc/{name}" if criterion == "b_loc" else criterion
        if key not in self._memory.best:
            raise ValueError(
                f"this phase chose no checkpoint {criterion!r} of the map {name!r}; have "
                f"{self.criteria()} of {self.maps()}"
            )
        return self._memory.best[key]["step"]

    def epoch(self, step: int) -> int:
        """The last epoch that had ended at `step`."""
        return max(row["epoch"] for row in self._memory.history if row["step"] <= step)

    def variables(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        """The model's variables at `step`, in the structure of `like`."""
        return self._checkpoints.restore_variables(step, like)


def _update(best, values, row):
    improved = False
    for criterion, value in values.items():
        if criterion not in best or value >= best[criterion]["value"]:
            best[criterion] = {"epoch": row["epoch"], "step": row["step"], "value": value}
            improved = True
    return improved


def _means(losses):
    names = losses[0] if losses else ()
    return {f"loss/{name}": float(np.mean([row[name] for row in losses])) for name in names}
