"""Finished runs into `results/`: what each was and gave, and one table over seeds.

python scripts/collect.py runs/seed0/* runs/seed1/* --output results/glas_short

Copies every run's config, record, numbers and history (no weights, images, curves or absolute
paths), and writes README.md with the mean and standard deviation over seeds beside the published
figures.
"""

import argparse
import collections
import json
import pathlib
import statistics
from collections.abc import Iterator

from wsol_jax import identity, logbook, map_kinds, run_files
from wsol_jax.map_kinds import MapKind
from wsol_jax.run_files import Run, at

FILES = ("config.json", "record.json", "metrics.json")
PLACES = tuple(f"baseline.{option}" for option in identity.ORIGINS)  # of a baseline per seed
LEFT_OUT = ("curve", "regions", "per_image")  # of the numbers, what there is of every image
HEADERS = {
    "pxap": ("PxAP B-LOC", "gain", "PxAP B-CL", "PxAP last", "accuracy", "paper"),
    "dice": ("F1+", "F1-", "error", "share 0 / 1", "F1+ B-LOC", "F1- B-LOC", "paper"),
}
EXPLAINED = {
    "pxap": "PxAP and accuracy on the test split, in percent, mean and deviation over seeds. "
    "B-LOC is chosen by the PxAP of the validation images that have pixel labels, B-CL by "
    "validation accuracy; accuracy is at B-LOC or, where there is none, at the last epoch.",
    "dice": "F1+, F1- and classification error on the test split, in percent, mean and deviation "
    "over seeds, at B-CL, the best validation accuracy, as published (at B-LOC, chosen by the Dice "
    "of the validation images that have pixel labels, where images are not classified). Share: of "
    "an image's pixels that are called object, averaged over the test images of class 0 and of "
    "class 1.",
}


def main() -> None:
    """Copies the runs and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--note", action="append", default=[], help="a paragraph for the README")
    options = parser.parse_args()
    runs = [read(folder) for folder in options.runs]
    require_together(runs)
    for run in runs:
        copy(run, options.output)
    metric = map_kinds.metric_of(runs[0])
    table = [f"| {' | '.join(row)} |" for row in rows(runs, metric)]
    paragraphs = [describe(runs, metric), *floors(runs), *options.note]
    paragraphs.insert(1, "\n".join(table))
    text = "\n\n".join(paragraphs) + "\n"
    (options.output / "README.md").write_text(text, encoding="utf-8")
    print(text)


def read(folder: pathlib.Path) -> Run:
    """A finished run; FileNotFoundError where it is none."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {missing}; expected a finished run of wsol_jax.main"
        )
    return run_files.read(folder)


def require_together(runs: list[Run]) -> None:
    """Raises ValueError where runs do not share a table, or two are of one name and seed."""
    data = {(run.metrics["data"]["name"], run.metrics["data"].get("fold")) for run in runs}
    judged = {map_kinds.metric_of(run) for run in runs}
    for what, found in (("on", data), ("judged by", judged)):
        if len(found) > 1:
            several = sorted(found, key=str)
            raise ValueError(f"runs {what} {several} cannot share a table; collect them apart")
    first = {run.metrics["name"]: run for run in reversed(runs)}
    for run in runs:
        other = first[run.metrics["name"]]
        differing = identity.differences(other.config, run.config)
        differing = [key for key in differing if key not in ("seed", *PLACES)]
        if differing:
            raise ValueError(
                f"{run.folder} and {other.folder} are of one name and differ in {differing}; they "
                "are no seeds of one run: collect them apart"
            )
    counts = collections.Counter((run.metrics["name"], run.metrics["seed"]) for run in runs)
    twice = [f"{name}, seed {seed}" for (name, seed), count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"several runs are of one name and seed: {twice}; pass one of each")


def copy(run: Run, output: pathlib.Path) -> None:
    """Copies the files of a run that are text and small."""
    target = output / f"{run.metrics['name']}_seed{run.metrics['seed']}".replace("/", "_")
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        values = without_curves(json.loads((run.folder / name).read_text()))
        (target / name).write_text(relative(json.dumps(values, indent=2)) + "\n")
    for phase, history in run.histories.items():
        if history:
            (target / phase).mkdir(exist_ok=True)
            text = (run.folder / phase / "history.jsonl").read_text()
            (target / phase / "history.jsonl").write_text(text)


def without_curves(values):
    """Nested dictionaries but for what is `LEFT_OUT`."""
    if not isinstance(values, dict):
        return values
    return {k: without_curves(v) for k, v in values.items() if k not in LEFT_OUT}


def relative(text: str) -> str:
    """A text without the place of this project on this machine."""
    here = pathlib.Path.cwd()
    text = text.replace(f"{here}/", "")
    return text if here.parent == here.parent.parent else text.replace(f"{here.parent}/", "../")


def rows(runs: list[Run], metric: str) -> Iterator[tuple[str, ...]]:
    """The table: a row for every kind of map of every kind of run, over seeds."""
    found = collections.defaultdict(list)
    for run in runs:
        kinds = map_kinds.of_run(run)
        for kind in kinds:
            elsewhere = kind.phase == "baseline" and run.config["baseline"]["workdir"]
            if not elsewhere:
                name = run.metrics["name"], f"{kind.phase}: {kind.name}"
                found[name].append((kind, gain(kind, kinds, run)))
    columns = {"pxap": of_pxap, "dice": of_dice}[metric]
    header = ("run", "map", "seeds", *HEADERS[metric])
    yield from (header, ("---",) * len(header))
    for name, entries in found.items():
        yield (*name, str(len(entries)), *columns(*zip(*entries, strict=True)))


def gain(kind: MapKind, kinds: list[MapKind], run: Run) -> float | None:
    """B-LOC PxAP of a second phase over that before it, if that is the run's own.

    The map before is that of the same name or, where there is none, the one that gave the seeds.
    """
    if kind.phase == "baseline" or kind.metric != "pxap":
        return None
    before = {k.name: k for k in kinds if k.phase == "baseline"}
    taught = before.get(at(run.config, "baseline", "cam"))
    if taught is None or run.config["baseline"]["cam_workdir"]:
        return None
    scores = [k.scores_at("b_loc")["pxap"] for k in (kind, before.get(kind.name, taught))]
    return None if None in scores else scores[0] - scores[1]


def of_pxap(kinds: tuple[MapKind, ...], gains: tuple[float | None, ...]) -> list[str]:
    """A row's columns of `HEADERS`."""
    pxap = [
        spread([kind.scores_at(key)["pxap"] for kind in kinds]) for key in map_kinds.CHECKPOINTS
    ]
    accuracy = spread([kind.scores["accuracy"] for kind in kinds])
    paper = kinds[0].published.get("pxap")
    return [pxap[0], spread(gains), *pxap[1:], accuracy, "" if paper is None else f"{paper:.1f}"]


def of_dice(kinds: tuple[MapKind, ...], _: tuple[None, ...]) -> list[str]:
    """A row's columns of `HEADERS`."""
    scores = [spread(values) for values in zip(*(k.scores.values() for k in kinds), strict=True)]
    areas = [kind.results[kind.chosen]["test"]["foreground_share"].values() for kind in kinds]
    shares = " / ".join(spread(values) for values in zip(*areas, strict=True))
    located = [kind.scores_at("b_loc") for kind in kinds]
    located = [spread([s[key] for s in located]) for key in ("f1_foreground", "f1_background")]
    paper, keys = kinds[0].published, map_kinds.SCORES["dice"]
    known = [f"{paper[key]:.1f}" for key in keys if key in paper]
    return [*scores, shares, *located, " / ".join(known)]


def floors(runs: list[Run]) -> list[str]:
    """What maps score that have learnt nothing, as one list: the features' by their encoder."""
    found = collections.defaultdict(list)
    for run in runs:
        for name, value in run.metrics["floors"].items():
            encoder = f" of {run.config['backbone']['name']}" * (name == "mean_feature_map")
            found[f"{name.replace('_', ' ')}{encoder}"].append(value)
    lines = [f"- {name}: {spread(values)}" for name, values in sorted(found.items())]
    return ["\n".join(lines)] if lines else []


def spread(values) -> str:
    """Mean and, of several, standard deviation; a dash where there is nothing."""
    if not values or None in values:
        return "\N{EN DASH}"
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def describe(runs: list[Run], metric: str) -> str:
    """What the runs have in common, and what was reduced."""
    records = [run.record for run in runs]
    notes = sorted({note for record in records for note in record["notes"]})
    weights = sorted({json.dumps(record["weights"]) for record in records})
    data = runs[0].metrics["data"]
    lines = [
        f"# {data['name']}, fold {data.get('fold')}",
        "",
        f"{logbook.provenance(records)}; weights: {'; '.join(weights)}.",
        *[f"Reduced: {note}." for note in notes],
        EXPLAINED[metric],
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
