"""Every kind of map that a run makes, with its results beside the published ones."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wsol_jax import method, published, wording
from wsol_jax.run_files import Run, at

SCORES = {  # by metric: what is reported of every checkpoint, the foremost first
    "pxap": {"pxap": "PxAP", "accuracy": "Accuracy"},
    "dice": {"f1_foreground": "F1+", "f1_background": "F1\N{MINUS SIGN}", "error": "Class. error"},
}
CHECKPOINTS = ("b_loc", "b_cl", "last")  # in the order in which they are shown
VALIDATION = {"pxap": "PxAP", "dice": "Dice"}
MAPS = "valpx/{metric}/"  # in a history, followed by the name of the map
# Of PixelCAM's main results: the images, and the head that stands below each kind of map.
IMAGES = {"image_size": 224, "data.fold": 0, "data.division": "slide_disjoint"}
HEADS = {"deep_mil": "deep_mil", "grad_cam_pp": "wgap", "layer_cam": "wgap", "sat": "conv_gap"}
# Of the second phases of the main results: what they begin from, and the keywords in which they
# differ by data set and encoder.
ORIGIN = {"cam_checkpoint": "b_loc", "weights_checkpoint": "b_cl", "cam_workdir": ""}
FREE = {
    "pixelcam": ("dropout", "negatives", "seed_grid"),
    "negev": ("negatives", "channels", "centre"),
}


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

    Of a baseline's maps the one that gave the seeds comes first, for the gain is over it; else they
    are in the order of the config. Titles of two phases that are alike say the phase.
    """
    kinds, origin, metric = [], at(run.config, "baseline", "cam"), metric_of(run)
    prefix = MAPS.format(metric=metric)
    for phase, made_by in run.phases.items():
        tested = at(run.metrics, "phases", phase, "maps") or {}
        history = run.histories[phase]
        keys = [key for row in history[:1] for key in row if key.startswith(prefix)]
        names = dict.fromkeys([*tested, *(key.removeprefix(prefix) for key in keys)])
        section = run.config["baseline"] if phase == "baseline" else run.config
        order = [origin, *(at(section, "method", "readouts") or ())]
        names = sorted(names, key=lambda name: order.index(name) if name in order else len(order))
        for name in names:
            rows = [
                {
                    "epoch": row["epoch"],
                    "accuracy": row.get("valcl/accuracy"),
                    "maps": row.get(prefix + name),
                }
                for row in history
            ]
            row = _published(run.config, phase, made_by, name)
            known = (tested.get(name, {}), row, rows, metric)
            title = wording.name_of(_own_row(run.config, name) or name)
            kinds.append(MapKind(len(kinds), phase, name, title, *known))
    counts = collections.Counter(kind.title for kind in kinds)
    return [
        kind._replace(title=f"{kind.title} ({kind.phase})") if counts[kind.title] > 1 else kind
        for kind in kinds
    ]


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


def _as_published(config: Mapping[str, Any], name: str) -> bool:
    """Whether a second phase is set as those of the main results are."""
    if name not in FREE or "," in config.get("name", ""):
        return False
    origin = {key: at(config, "baseline", key) for key in ORIGIN}
    usual = {**ORIGIN, **method.defaults(name)}
    given = {**usual, **{k: v for k, v in origin.items() if v is not None}, **config["method"]}
    return all(given[key] == value for key, value in usual.items() if key not in FREE[name])


def _of_main_results(config: Mapping[str, Any], cam: str) -> bool:
    """Whether images and head are those of PixelCAM's main results for the maps called `cam`."""
    usual = {**IMAGES, "head.name": HEADS.get(cam), "head.gated": True}
    return all(at(config, *key.split(".")) in (None, value) for key, value in usual.items())


def _published(config: Mapping[str, Any], phase: str, made_by: str, name: str) -> dict[str, float]:
    """The papers' numbers for the maps called `name` that the method `made_by` makes.

    A config may name its row itself, under "published". Other folds, divisions, sizes and heads,
    settings of an ablation, CAMs of another run or checkpoint and controls stand beside no number
    of the main results.
    """
    data = at(config, "data", "name") or ""
    if own := _own_row(config, name):
        row = published.lookup(data=data, backbone="resnet18", method=own)
        return {} if at(config, "data", "fold") else row or {}
    second = bool(config.get("baseline")) and phase != "baseline"
    cam = (at(config, "baseline", "cam") or "") if second else name
    if not _of_main_results(config, cam) or (second and not _as_published(config, made_by)):
        return {}
    on_top = {name: made_by == name for name in FREE}
    row = published.lookup(data=data, backbone=backbone_of(config), method=cam, **on_top)
    return row or {}
