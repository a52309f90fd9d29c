"""Every kind of map that a run makes, with its results beside the published ones."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wsol_jax import published, wording
from wsol_jax.run_files import Run, at

SCORES = {  # by metric: what is reported of every checkpoint, the foremost first
    "pxap": {"pxap": "PxAP", "accuracy": "Accuracy"},
    "dice": {"f1_foreground": "F1+", "f1_background": "F1\N{MINUS SIGN}", "error": "Class. error"},
}
VALIDATION = {"pxap": "PxAP", "dice": "Dice"}
MAPS = "valpx/{metric}/"  # in a history, followed by the name of the map


class MapKind(NamedTuple):
    """One kind of map that a phase of the run makes, such as the baseline's LayerCAM.

    `place` counts the kinds of a run, in the order of its phases. `results` by checkpoint and
    `published` by quantity are in percent; `history` has one row for each evaluated epoch;
    `metric` is that of the run. What the run or the papers do not have is empty.
    """

    place: int
    phase: str
    name: str
    title: str
    results: Mapping[str, Any]
    published: Mapping[str, float]
    history: Sequence[Mapping[str, Any]]
    metric: str

    @property
    def chosen(self) -> str:
        """The checkpoint that stands for the map: `published.REPORTED`."""
        found = published.reported(self.metric, self.results)
        return found or published.REPORTED[self.metric][0]

    @property
    def scores(self) -> dict[str, float | None]:
        """`SCORES` on the test split, at the chosen checkpoint."""
        return self.scores_at(self.chosen)

    @property
    def score(self) -> float | None:
        """The foremost of the scores."""
        return self.scores[next(iter(SCORES[self.metric]))]

    @property
    def separability(self) -> Mapping[str, Any]:
        """J on the test split, at the chosen checkpoint; nothing where it was not computed."""
        return at(self.results, self.chosen, "test", "separability") or {}

    @property
    def labelled_pixels(self) -> int | None:
        """How many pixel labels B-LOC was chosen by."""
        return at(self.results, "b_loc", "valpx", "pixels")

    def scores_at(self, checkpoint: str) -> dict[str, float | None]:
        """`SCORES` on the test split, at a checkpoint."""
        test = at(self.results, checkpoint, "test") or {}
        accuracy = test.get("accuracy")
        known = {**test, "error": None if accuracy is None else 100 - accuracy}
        return {key: known.get(key) for key in SCORES[self.metric]}


def of_run(run: Run) -> list[MapKind]:
    """Every kind of map with test results or, while there are none, with a history.

    Of a baseline's maps the one that gave the seeds comes first: the gain is over it.
    """
    kinds, origin, metric = [], at(run.config, "baseline", "cam"), metric_of(run)
    prefix = MAPS.format(metric=metric)
    for phase, method in run.phases.items():
        tested = at(run.metrics, "phases", phase, "maps") or {}
        history = run.histories[phase]
        keys = [key for row in history[:1] for key in row if key.startswith(prefix)]
        names = dict.fromkeys([*tested, *(key.removeprefix(prefix) for key in keys)])
        for name in sorted(names, key=lambda name: name != origin):
            rows = [
                {
                    "epoch": row["epoch"],
                    "accuracy": row.get("valcl/accuracy"),
                    "maps": row.get(prefix + name),
                }
                for row in history
            ]
            row = _published(run.config, phase, method, name)
            known = (tested.get(name, {}), row, rows, metric)
            title = wording.name_of(_own_row(run.config, name) or name)
            kinds.append(MapKind(len(kinds), phase, name, title, *known))
    return kinds


def metric_of(run: Run) -> str:
    """By which metric a run's maps are judged."""
    return at(run.config, "metric") or "pxap"


def backbone_of(config: Mapping[str, Any]) -> str:
    """The key of the published tables: the max-min paper's are all for ResNet-18."""
    if config.get("published"):
        return "resnet18"
    return at(config, "backbone", "name") or ""


def _own_row(config: Mapping[str, Any], name: str) -> str:
    """The row of the papers that a config names itself, for the first of its maps."""
    first, *_ = at(config, "method", "readouts") or (name,)
    return config.get("published", "") if name == first else ""


def _published(config: Mapping[str, Any], phase: str, method: str, name: str) -> dict[str, float]:
    """The papers' numbers for the maps called `name` that a method makes.

    A config may name its row itself, under "published". Settings of an ablation, CAMs of another
    run and controls stand beside no number of the main results.
    """
    second = bool(config.get("baseline")) and phase != "baseline"
    if second and (
        method not in ("pixelcam", "negev")
        or "," in config.get("name", "")
        or at(config, "baseline", "cam_workdir")
    ):
        return {}
    data = at(config, "data", "name") or ""
    own = _own_row(config, name)
    if own:
        return published.lookup(data=data, backbone="resnet18", method=own) or {}
    row = {
        "data": data,
        "backbone": backbone_of(config),
        "method": (at(config, "baseline", "cam") or "") if second else name,
    }
    return published.lookup(**row, pixelcam=method == "pixelcam", negev=method == "negev") or {}
