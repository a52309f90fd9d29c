"""One self-contained HTML page about a run: numbers beside the published ones, curves, pictures.

Reads the run folder (config.json, record.json, metrics.json, gallery.npz and each phase's
history.jsonl), never a model or a data set. What an unfinished run lacks is left out, and said.
"""

import base64
import io
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from wsol_jax import logbook, metrics, published, run_files, visualize
from wsol_jax.run_files import Run, at

NAMES = {
    "folder": "Own images",
    "glas": "GlaS",
    "camelyon16": "CAMELYON16",
    "synthetic_glands": "Synthetic glands",
    "cam": "CAM",
    "grad_cam": "Grad-CAM",
    "grad_cam_pp": "Grad-CAM++",
    "layer_cam": "LayerCAM",
    "deep_mil": "DeepMIL",
    "sat": "SAT",
    "negev": "NEGEV",
    "pixelcam": "PixelCAM",
    "unet": "U-Net",
    "b_loc": "B-LOC",
    "b_cl": "B-CL",
    "eem": "EEM",
    "sem": "SEM",
    "pn": "PN",
    "erase": "ERASE",
    "wildcat": "WILDCAT",
    "cam_avg": "CAM-Avg",
    "cam_max": "CAM-Max",
    "cam_lse": "CAM-LSE",
    "constant_map": "Constant map",
    "all_foreground": "All foreground",
    "mean_feature_map": "Mean feature map",
    "seconds": "time",
}
CLASSES = {
    "glas": ("benign", "malignant"),
    "synthetic_glands": ("benign", "malignant"),
    "camelyon16": ("normal", "metastatic"),
}
CHECKPOINTS = ("b_loc", "b_cl", "last")
SCORES = {  # by metric: what is reported of every checkpoint, the foremost first
    "pxap": {"pxap": "PxAP", "accuracy": "Accuracy"},
    "dice": {"f1_foreground": "F1+", "f1_background": "F1\N{MINUS SIGN}", "error": "Class. error"},
}
VALIDATION = {"pxap": "PxAP", "dice": "Dice"}
REGIONS = {"seen": "training images", "valcl": "validation images", "test": "test images"}
THEMES = {"light": visualize.LIGHT, "dark": visualize.DARK}
MAPS = "valpx/{metric}/"  # in a history, followed by the name of the map
GALLERY_SIZE = 8


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
        candidates = published.REPORTED[self.metric]
        return next((c for c in candidates if c in self.results), candidates[0])

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

    def scores_at(self, checkpoint: str) -> dict[str, float | None]:
        """`SCORES` on the test split, at a checkpoint."""
        test = at(self.results, checkpoint, "test") or {}
        accuracy = test.get("accuracy")
        known = {**test, "error": None if accuracy is None else 100 - accuracy}
        return {key: known.get(key) for key in SCORES[self.metric]}


def write(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes `report.html` into the folder of a run and returns its path.

    Raises:
      FileNotFoundError: there is no such folder, or it holds no run.
      ValueError: a file of the run is damaged.
    """
    run = run_files.read(pathlib.Path(workdir))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "signed": signed, "name": name_of}
    environment.globals |= {"difference": difference}
    template = resources.files("wsol_jax").joinpath("report.html").read_text(encoding="utf-8")
    path = run.folder / "report.html"
    logbook.write_text(path, environment.from_string(template).render(contents(run)))
    return path


def contents(run: Run) -> dict[str, Any]:
    """The variables of the template report.html."""
    kinds, metric = _kinds(run), _metric(run)
    data = run.config.get("data", {})
    classes = CLASSES.get(data.get("name"), ())
    numbered = {"fold": data.get("fold"), "seed": run.config.get("seed")}
    title = [f"{name} {value}" for name, value in numbered.items() if value is not None]
    return {
        "title": ", ".join([name_of(data.get("name", "unknown data")), *title]),
        "name": run.config.get("name", run.folder.name),
        "headline": _headline(kinds, metric),
        "metric": metric,
        "scores": SCORES[metric],
        "classes": classes,
        "groups": _groups(kinds, classes),
        "validation": VALIDATION[metric],
        "sources": [table.source for table in published.tables(_backbone(run.config))],
        "missing": _missing(run),
        "unlabelled": run.metrics.get("floors") == {},
        "kinds": kinds,
        "floors": run.metrics.get("floors", {}),
        "gallery": _gallery(run, kinds),
        "legend": _image_uri(visualize.legend(), "PNG"),
        "figures": _figures(kinds, at(run.metrics, "floors", "constant_map"))
        + _separability_figures(kinds, classes),
        "facts": {key: _fact(key, value) for key, value in run.record.items() if value != []},
        "config": json.dumps(run.config, indent=2),
        "checkpoints": CHECKPOINTS,
        "themes": THEMES,
    }


def number(value: Any, digits: int = 1) -> str:
    """A number as shown: rounded, or a dash where there is none."""
    return f"{value:.{digits}f}" if _is_number(value) else "\N{EN DASH}"


def signed(value: Any) -> str:
    """A difference as shown: +1.0 or −1.0, with a true minus, or a dash."""
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}") if _is_number(value) else "\N{EN DASH}"


def difference(value: Any, reference: Any) -> float | None:
    """Of the numbers as shown, so that the page adds up."""
    if not (_is_number(value) and _is_number(reference)):
        return None
    return round(round(value, 1) - round(reference, 1), 1) + 0.0  # no negative zero


def name_of(key: str) -> str:
    """The spelling of the papers, where there is one; else the key without underscores."""
    return NAMES.get(key, key.replace("_", " "))


def _kinds(run: Run) -> list[MapKind]:
    """Every kind of map with test results or, while there are none, with a history.

    Of a baseline's maps the one that gave the seeds comes first: the gain is over it.
    """
    kinds, origin, metric = [], at(run.config, "baseline", "cam"), _metric(run)
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
            row = _published(run.config, method, name)
            known = (tested.get(name, {}), row, rows, metric)
            title = name_of(run.config.get("published") or name)
            kinds.append(MapKind(len(kinds), phase, name, title, *known))
    return kinds


def _published(config: Mapping[str, Any], method: str, name: str) -> dict[str, float]:
    """The papers' numbers for the maps called `name` that a method makes.

    A config may name its row itself, under "published".
    """
    data = at(config, "data", "name") or ""
    if config.get("published"):
        row = {"backbone": "resnet18", "method": config["published"]}
        return published.lookup(data=data, **row) or {}
    second = method in ("pixelcam", "negev")
    row = {
        "data": data,
        "backbone": _backbone(config),
        "method": (at(config, "baseline", "cam") or "") if second else name,
    }
    return published.lookup(**row, pixelcam=method == "pixelcam", negev=method == "negev") or {}


def _metric(run: Run) -> str:
    return at(run.config, "metric") or "pxap"


def _backbone(config: Mapping[str, Any]) -> str:
    """The key of the published tables: the max-min paper's are all for ResNet-18."""
    if config.get("published"):
        return "resnet18"
    return at(config, "backbone", "name") or ""


def _headline(kinds: Sequence[MapKind], metric: str) -> str:
    """The gain of the last phase over the first or, of a single phase, its best map's scores."""
    scored = [kind for kind in kinds if _is_number(kind.score)]
    if not scored:
        known = [kind for kind in kinds if _is_number(kind.scores.get("accuracy"))]
        rightly = [f"{k.title} classifies {k.scores['accuracy']:.1f} % rightly" for k in known]
        return "; ".join(rightly[-1:]) or "No test results yet"
    first, last = scored[0], scored[-1]
    if metric == "dice":
        named = [f"{SCORES[metric][k]} {v:.1f}" for k, v in last.scores.items() if _is_number(v)]
        return f"{last.title} reaches {', '.join(named)}"
    if first.phase == last.phase:
        best = max(scored, key=lambda kind: kind.score)
        return f"{best.title} reaches a PxAP of {best.score:.1f}"
    gain = difference(last.score, first.score)
    verb = "raises" if gain > 0 else "lowers" if gain < 0 else "takes"
    numbers = f"from {first.score:.1f} to {last.score:.1f} ({signed(gain)})"
    return f"{last.title} {verb} the PxAP of {first.title} {numbers}"


def _missing(run: Run) -> list[str]:
    """What an unfinished run lacks, in sentences."""
    untested = [phase for phase in run.phases if not at(run.metrics, "phases", phase, "maps")]
    sentences = []
    if not run.metrics:
        sentences.append("There are no test numbers yet: metrics.json is missing.")
    elif untested:
        sentences.append(f"There are no test numbers of {' and '.join(untested)} yet.")
    if not run.gallery:
        sentences.append("There are no pictures yet: gallery.npz is missing.")
    return sentences


def _gallery(run: Run, kinds: Sequence[MapKind]) -> list[dict[str, Any]]:
    """Test images, the classes taking turns, each with its panels as data URIs."""
    if not run.gallery:
        return []
    labels = run.gallery["label"]
    classes = dict(enumerate(CLASSES.get(at(run.config, "data", "name"), ())))
    maps = {kind.title: run.gallery.get(f"map_{kind.phase}_{kind.name}") for kind in kinds}
    annotated = np.any(run.gallery["mask"] != metrics.IGNORED)
    rows = []
    for i in _mixed(labels)[:GALLERY_SIZE]:
        drawn = {k: heat[i].astype(np.float32) for k, heat in maps.items() if heat is not None}
        name, image, mask = (run.gallery[key][i] for key in ("name", "image", "mask"))
        panels = visualize.panels(visualize.Example(str(name), image, mask, drawn))
        if not annotated:
            del panels["truth"]
        pictures = {title: _image_uri(panel, "JPEG") for title, panel in panels.items()}
        label = classes.get(int(labels[i]), f"class {labels[i]}")
        rows.append({"name": str(name), "label": label, "panels": pictures})
    return rows


def _mixed(labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Positions ordered so that the classes take turns."""
    turn = [np.sum(labels[:i] == label) for i, label in enumerate(labels)]
    return np.argsort(turn, kind="stable")


def _figures(kinds: Sequence[MapKind], constant_map: float | None) -> list[dict[str, str]]:
    """Precision-recall curves or region sizes, then the selection curves of each kind of map."""
    figures = []
    tested = [kind for kind in kinds if at(kind.results, kind.chosen, "test", "curve")]
    if tested:
        labels = [f"{kind.title} {number(kind.score)}" for kind in tested]
        curves = [
            visualize.Curve(kind.place, label, **kind.results[kind.chosen]["test"]["curve"])
            for kind, label in zip(tested, labels, strict=True)
        ]
        drawing = _themed(visualize.precision_recall_figure, curves, constant_map=constant_map)
        title = f"Precision and recall of test pixels, at {name_of(tested[0].chosen)}"
        figures.append({"title": title, **drawing})
    for kind in kinds:
        for split, name in REGIONS.items():
            regions = at(kind.results, kind.chosen, split, "regions")
            if regions:
                drawing = _themed(visualize.regions_figure, **regions, place=kind.place)
                figures.append({"title": f"Regions of {kind.title}, {name}", **drawing})
    for kind in kinds:
        if kind.history:
            found = {key: at(kind.results, key, "epoch") for key in CHECKPOINTS}
            chosen = {name_of(key): epoch for key, epoch in found.items() if epoch is not None}
            options = {"chosen": chosen, "place": kind.place, "label": VALIDATION[kind.metric]}
            drawing = _themed(visualize.selection_figure, kind.history, **options)
            figures.append({"title": f"Selection of {kind.title} on validation images", **drawing})
    return figures


def _groups(kinds: Sequence[MapKind], classes: Sequence[str]) -> dict[str, str]:
    """The images that J is averaged over: their key in the results, and what they are called."""
    keys = dict.fromkeys(key for kind in kinds for key in kind.separability if key.isdigit())
    titles = {key: f"class {key}" for key in keys} | {str(i): c for i, c in enumerate(classes)}
    return {key: titles[key] for key in keys} | ({"all": "all"} if keys else {})


def _separability_figures(kinds: Sequence[MapKind], classes: Sequence[str]) -> list[dict[str, str]]:
    """For each class, histograms of the J of its test images."""
    figures = []
    for key, title in _groups(kinds, classes).items():
        drawn = []
        for kind in kinds:
            images = kind.separability.get("per_image", {"labels": (), "values": ()})
            pairs = zip(images["labels"], images["values"], strict=True)
            values = [value for label, value in pairs if str(label) == key and _is_number(value)]
            if values:
                label = f"{kind.title} {number(kind.separability[key], 2)}"
                drawn.append(visualize.Histogram(kind.place, label, values))
        if drawn:
            drawing = _themed(visualize.separability_figure, drawn)
            figures.append({"title": f"Class separability of {title} test images", **drawing})
    return figures


def _themed(draw: Callable[..., bytes], *values: Any, **options: Any) -> dict[str, str]:
    """A figure for white and for dark pages, as data URIs."""
    drawn = {name: draw(*values, theme=theme, **options) for name, theme in THEMES.items()}
    return {name: _uri(encoded, "image/svg+xml") for name, encoded in drawn.items()}


def _image_uri(image: UInt8[np.ndarray, "h w 3"], encoding: str) -> str:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, encoding, quality=90, subsampling=0)
    return _uri(encoded.getvalue(), f"image/{encoding.lower()}")


def _uri(encoded: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(encoded).decode()}"


def _fact(key: str, value: Any) -> str | list[str]:
    """An entry of the record as a text or as a list of texts."""
    if isinstance(value, Mapping):
        return [f"{name_of(str(name))}: {entry}" for name, entry in value.items()]
    if isinstance(value, list):
        return [str(entry) for entry in value]
    return logbook.duration(value) if key == "seconds" else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
