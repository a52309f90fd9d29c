"""The phases of a finished run at the checkpoint that the papers report, to score other images."""

import pathlib
from typing import Any, NamedTuple

from wsol_jax import evaluate, experiment, identity, published, selection
from wsol_jax.data import splits
from wsol_jax.method import Method


class Phase(NamedTuple):
    """A trained phase; `title` is its name in `metrics.json`, `like` the model's variables."""

    title: str
    method: Method
    evaluator: evaluate.Evaluator
    best: selection.Best
    checkpoint: str
    like: dict[str, Any]

    def scores(self, *tested: splits.Split) -> list[dict[str, evaluate.Scores]]:
        """The scores of each split by map, every map at the checkpoint that is reported of it."""
        steps = {name: self.best.step(self.checkpoint, name) for name in self.best.maps()}
        found = [{} for _ in tested]
        for step in sorted(set(steps.values())):
            variables = self.evaluator.place(self.best.variables(step, self.like))
            for scores, split in zip(found, tested, strict=True):
                scores[step] = self.evaluator.scores(variables, split)
        return [{name: scores[step] for name, step in steps.items()} for scores in found]


def phases(config: Any, workdir: pathlib.Path) -> list[Phase]:
    """The phases of a run, the baseline first.

    Raises:
      FileExistsError: the run is of another version of a method.
      FileNotFoundError: a phase has not been trained.
      ValueError: a phase has not been trained to its end.
    """
    return [phase(config, workdir, title) for title in experiment.sections(config)]


def first_phase(workdir: pathlib.Path) -> Phase:
    """The first phase of the run at `workdir`, which knows its config; see `phases`."""
    config = experiment.stored_config(workdir)
    return phase(config, workdir, next(iter(experiment.sections(config))))


def phase(config: Any, workdir: pathlib.Path, title: str) -> Phase:
    """The phase of a run that its config has under this title; see `phases`."""
    identity.check_versions(workdir, identity.versions(config))
    folder, epochs = identity.place(config, workdir, title)
    method = experiment.build(config, experiment.sections(config)[title].method)
    best = selection.Best(folder)
    best.require_end(epochs)
    checkpoint = published.reported(config.metric, best.criteria())
    evaluator = evaluate.Evaluator(method, config.evaluation_batch_size, config.metric)
    like = experiment.zeros(config, method)
    return Phase(title, method, evaluator, best, checkpoint, like)
