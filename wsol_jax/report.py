"""One self-contained HTML page about a run: numbers beside the published ones, curves, pictures.

Reads the run folder (config.json, record.json, metrics.json, gallery.npz, `DRAWINGS` and each
phase's history.jsonl), never a model or a data set. What an unfinished run lacks is left out, and
said.
"""

import base64
import io
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from wsol_jax import (
    figures,
    files,
    logbook,
    map_kinds,
    pixel_labels,
    published,
    run_files,
    visualize,
    wording,
)
from wsol_jax.data import sources
from wsol_jax.map_kinds import MapKind
from wsol_jax.run_files import Run, at

REGIONS = {"seen": "training images", "valcl": "validation images", "test": "test images"}
THEMES = {"light": figures.LIGHT, "dark": figures.DARK}
DRAWINGS = {  # that other modes leave in the folder of a run
    "stain_shift.svg": "Scores of the test images in other stains",
    "embedding.svg": "Pixel features of test images",
}


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
    environment.filters |= {
        "number": wording.number,
        "signed": wording.signed,
        "name": wording.name_of,
    }
    environment.globals |= {"difference": wording.difference}
    template = resources.files("wsol_jax").joinpath("report.html").read_text(encoding="utf-8")
    path = run.folder / "report.html"
    files.write_text(path, environment.from_string(template).render(contents(run)))
    return path


def contents(run: Run) -> dict[str, Any]:
    """The variables of the template report.html."""
    kinds, metric = map_kinds.of_run(run), map_kinds.metric_of(run)
    data = run.config.get("data", {})
    classes = _classes(run)
    numbered = {"fold": data.get("fold"), "seed": run.config.get("seed")}
    title = [f"{name} {value}" for name, value in numbered.items() if value is not None]
    return {
        "title": ", ".join([wording.name_of(data.get("name", "unknown data")), *title]),
        "name": run.config.get("name", run.folder.name),
        "headline": _headline(kinds, metric),
        "headed": _headed(kinds, metric),
        "metric": metric,
        "scores": map_kinds.SCORES[metric],
        "classes": classes,
        "groups": _groups(kinds, classes),
        "validation": map_kinds.VALIDATION[metric],
        "sources": [table.source for table in published.tables(map_kinds.backbone_of(run.config))],
        "missing": _missing(run),
        "unlabelled": run.metrics.get("floors") == {},
        "images": run.metrics.get("images", {}),
        "labelled_pixels": next(filter(None, (kind.labelled_pixels for kind in kinds)), None),
        "kinds": kinds,
        "floors": run.metrics.get("floors", {}),
        "gallery": _gallery(run, kinds),
        "legend": _image_uri(visualize.legend(), "PNG"),
        "figures": _figures(kinds, classes, at(run.metrics, "floors", "constant_map")),
        "drawings": {
            title: _uri((run.folder / name).read_bytes(), "image/svg+xml")
            for name, title in DRAWINGS.items()
            if (run.folder / name).is_file()
        },
        "facts": {k: _fact(k, v) for k, v in run.record.items() if v not in ([], {})},
        "config": json.dumps(run.config, indent=2),
        "checkpoints": map_kinds.CHECKPOINTS,
        "themes": THEMES,
        "colours": len(figures.LIGHT.maps),
    }


def _headline(kinds: Sequence[MapKind], metric: str) -> str:
    """The gain of the last phase over the first or, of a single phase, its scores."""
    headed = _headed(kinds, metric)
    if not headed:
        known = [kind for kind in kinds if wording.is_number(kind.scores.get("accuracy"))]
        said = [f"{k.title} classifies {k.scores['accuracy']:.1f} % correctly" for k in known]
        return "; ".join(said[-1:]) or "No test results yet"
    first, last = headed[0], headed[-1]
    if metric == "dice":
        named = [
            f"{map_kinds.SCORES[metric][k]} {v:.1f}"
            for k, v in last.scores.items()
            if wording.is_number(v)
        ]
        return f"{last.title} reaches {', '.join(named)}"
    if len(headed) == 1:
        return f"{last.title} reaches a PxAP of {last.score:.1f}"
    gain = wording.difference(last.score, first.score)
    verb = "raises" if gain > 0 else "lowers" if gain < 0 else "takes"
    numbers = f"from {first.score:.1f} to {last.score:.1f} ({wording.signed(gain)})"
    return f"{last.title} {verb} the PxAP of {first.title} {numbers}"


def _headed(kinds: Sequence[MapKind], metric: str) -> list[MapKind]:
    """The maps that the headline is of: the first of each phase, of the last alone with Dice."""
    scored = [kind for kind in kinds if wording.is_number(kind.score)]
    phases = {kind.phase: kind for kind in reversed(scored)}  # the first of a phase stays
    first_of_each = [kind for kind in scored if phases[kind.phase] is kind]
    return first_of_each[-1:] if metric == "dice" else first_of_each


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


def _classes(run: Run) -> tuple[str, ...]:
    """The names of the classes of a published set; none of one's own images."""
    dataset = sources.DATASETS.get(at(run.config, "data", "name"))
    return getattr(dataset, "CLASSES", ())


def _gallery(run: Run, kinds: Sequence[MapKind]) -> list[dict[str, Any]]:
    """Test images, the classes taking turns, each with its panels as data URIs."""
    if not run.gallery:
        return []
    labels = run.gallery["label"]
    classes = dict(enumerate(_classes(run)))
    maps = {kind.title: run.gallery.get(f"map_{kind.phase}_{kind.name}") for kind in kinds}
    annotated = np.any(run.gallery["mask"] != pixel_labels.UNANNOTATED)
    rows = []
    for i in _mixed(labels):
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


def _figures(
    kinds: Sequence[MapKind], classes: Sequence[str], constant_map: float | None
) -> list[dict[str, str]]:
    """Everything drawn of the numbers of a run."""
    return [
        *_precision_recall(kinds, constant_map),
        *_regions(kinds),
        *_separability(kinds, classes),
        *_selection(kinds),
    ]


def _precision_recall(kinds, constant_map):
    tested = [kind for kind in kinds if at(kind.results, kind.chosen, "test", "curve")]
    curves = [
        figures.Curve(
            kind.place,
            f"{kind.title} {wording.number(kind.score)}",
            **kind.results[kind.chosen]["test"]["curve"],
        )
        for kind in tested
    ]
    if curves:
        drawing = _themed(figures.precision_recall_figure, curves, constant_map=constant_map)
        checkpoint = wording.name_of(tested[0].chosen)
        yield {"title": f"Precision and recall of test pixels, at {checkpoint}", **drawing}


def _regions(kinds):
    for kind in kinds:
        for split, name in REGIONS.items():
            regions = at(kind.results, kind.chosen, split, "regions")
            if regions:
                drawing = _themed(figures.regions_figure, **regions, place=kind.place)
                yield {"title": f"Regions of {kind.title}, {name}", **drawing}


def _selection(kinds):
    for kind in kinds:
        if kind.history:
            epochs = {key: at(kind.results, key, "epoch") for key in map_kinds.CHECKPOINTS}
            chosen = {wording.name_of(k): epoch for k, epoch in epochs.items() if epoch is not None}
            label = map_kinds.VALIDATION[kind.metric]
            options = {"chosen": chosen, "place": kind.place, "label": label}
            drawing = _themed(figures.selection_figure, kind.history, **options)
            yield {"title": f"Selection of {kind.title} on validation images", **drawing}


def _groups(kinds: Sequence[MapKind], classes: Sequence[str]) -> dict[str, str]:
    """The images that J is averaged over: their key in the results, and what they are called."""
    keys = dict.fromkeys(key for kind in kinds for key in kind.separability if key.isdigit())
    titles = {key: f"class {key}" for key in keys} | {str(i): c for i, c in enumerate(classes)}
    return {key: titles[key] for key in keys} | ({"all": "all"} if keys else {})


def _separability(kinds, classes):
    """For each class, and for all of several, histograms of the J of the test images."""
    groups = _groups(kinds, classes)
    for key, title in groups.items():
        if key == "all" and len(groups) == 2:  # they are those of the one class
            continue
        drawn = []
        for kind in kinds:
            images = kind.separability.get("per_image", {"labels": (), "values": ()})
            pairs = zip(images["labels"], images["values"], strict=True)
            of_group = [j for label, j in pairs if key in (str(label), "all")]
            values = [j for j in of_group if wording.is_number(j)]
            if values:
                label = f"{kind.title} {wording.number(kind.separability[key], 2)}"
                drawn.append(figures.Line(kind.place, label, values))
        if drawn:
            drawing = _themed(figures.separability_figure, drawn)
            yield {"title": f"Class separability of {title} test images", **drawing}


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
        return [f"{wording.name_of(str(name))}: {entry}" for name, entry in value.items()]
    if isinstance(value, list):
        return [_command(entry) if isinstance(entry, Mapping) else str(entry) for entry in value]
    return logbook.duration(value) if key == "seconds" else str(value)


def _command(record: Mapping[str, Any]) -> str:
    """An earlier command of the run: when, by which code, where, and how long."""
    facts = [record.get(key) for key in ("started", "commit", "device", "processor")]
    if "seconds" in record:
        facts.append(logbook.duration(record["seconds"]))
    return ", ".join(str(fact) for fact in facts if fact)
