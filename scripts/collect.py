"""Finished runs into `results/`: what each was and gave, and one table over seeds.

python scripts/collect.py runs/seed0/* runs/seed1/* --output results/glas_short

Copies every run's config, record and numbers (no weights, images, curves or absolute paths), and
writes README.md with the mean and standard deviation over seeds beside the published figures.
"""

import argparse
import collections
import json
import pathlib
import statistics

from wsol_jax import published

FILES = ("config.json", "record.json", "metrics.json")
CHECKPOINTS = {"b_loc": "B-LOC", "b_cl": "B-CL", "last": "last"}
HEADER = ("run", "map", "seeds", "PxAP B-LOC", "gain", "PxAP B-CL", "PxAP last")
HEADER += ("accuracy", "paper")
DICE = {"f1_foreground": "F1+", "f1_background": "F1-", "error": "error"}
DICE_HEADER = ("run", "map", "seeds", *DICE.values(), "share 0 / 1")
DICE_HEADER += ("F1+ B-LOC", "F1- B-LOC", "paper")
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
    for folder, run in zip(options.runs, runs, strict=True):
        target = options.output / f"{run['name']}_seed{run['seed']}".replace("/", "_")
        target.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            values = without_curves(json.loads((folder / name).read_text()))
            (target / name).write_text(relative(json.dumps(values, indent=2)) + "\n")
    notes = [line for note in options.note for line in ("", note)]
    rows = dice_table(runs) if metric(runs) == "dice" else table(runs)
    text = "\n".join([describe(runs), "", *rows, "", *floors(runs), *notes]) + "\n"
    (options.output / "README.md").write_text(text, encoding="utf-8")
    print(text)


def without_curves(values):
    """Nested dictionaries but for curves and what there is of every single image."""
    if not isinstance(values, dict):
        return values
    left_out = ("curve", "regions", "per_image")
    return {k: without_curves(v) for k, v in values.items() if k not in left_out}


def relative(text: str) -> str:
    """A text without the place of this project on this machine."""
    here = pathlib.Path.cwd()
    text = text.replace(f"{here}/", "")
    return text if here.parent == here.parent.parent else text.replace(f"{here.parent}/", "../")


def read(folder: pathlib.Path) -> dict:
    """The numbers of a finished run, with its record; FileNotFoundError where it is none."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {missing}; expected a finished run of wsol_jax.main"
        )
    numbers, record = (
        json.loads((folder / f).read_text()) for f in ("metrics.json", "record.json")
    )
    config = json.loads((folder / "config.json").read_text())
    return {**numbers, "record": record, "config": config}


def table(runs: list[dict]) -> list[str]:
    """One row for every kind of map of every kind of run, mean and deviation over seeds."""
    found = collections.defaultdict(list)
    for run in runs:
        for phase, results in run["phases"].items():
            shared = phase == "baseline" and run["config"]["baseline"]["workdir"]
            for name, checkpoints in results["maps"].items():
                if not shared:
                    found[run["name"], phase, name].append((checkpoints, run))
    rows = [HEADER, ["---"] * len(HEADER)]
    for (title, phase, name), entries in found.items():
        checkpoints = [entry for entry, _ in entries]
        pxap = [
            spread([c[k]["test"].get("pxap") for c in checkpoints if k in c]) for k in CHECKPOINTS
        ]
        reported = [c.get("b_loc", c["last"])["test"] for c in checkpoints]
        accuracy = spread([test["accuracy"] for test in reported])
        seeds, paper = str(len(entries)), official(entries[0][1]["config"], phase, name)
        gains = spread([gain(c, run, phase) for c, run in entries])
        rows.append((title, f"{phase}: {name}", seeds, pxap[0], gains, *pxap[1:], accuracy, paper))
    return [f"| {' | '.join(row)} |" for row in rows]


def dice_table(runs: list[dict]) -> list[str]:
    """One row for every kind of map of every kind of run, mean and deviation over seeds."""
    found = collections.defaultdict(list)
    for run in runs:
        for phase, results in run["phases"].items():
            for name, checkpoints in results["maps"].items():
                found[run["name"], f"{phase}: {name}"].append((checkpoints, run["config"]))
    rows = [DICE_HEADER, ["---"] * len(DICE_HEADER)]
    for (title, kind), entries in found.items():
        tests = {
            key: [with_error(c[key]["test"]) for c, _ in entries if key in c]
            for key in ("b_cl", "b_loc")
        }
        reported = tests["b_cl"] or tests["b_loc"]
        scores = [spread([test[key] for test in reported]) for key in DICE]
        areas = [test["foreground_share"].values() for test in reported]
        shares = " / ".join(spread(values) for values in zip(*areas, strict=True))
        located = [spread([test[key] for test in tests["b_loc"]]) for key in list(DICE)[:2]]
        told = (*scores, shares, *located, official_dice(entries[0][1]))
        rows.append((title, kind, str(len(entries)), *told))
    return [f"| {' | '.join(row)} |" for row in rows]


def with_error(test: dict) -> dict:
    """Test numbers with the classification error, where images are classified."""
    accuracy = test["accuracy"]
    return {**test, "error": None if accuracy is None else 100 - accuracy}


def official_dice(config: dict) -> str:
    """The max-min paper's F1+, F1- and error of a row, or nothing."""
    data, method = config["data"]["name"], config["published"]
    row = published.lookup(data=data, backbone="resnet18", method=method)
    return " / ".join(f"{row[key]:.1f}" for key in DICE if key in row) if row else ""


def require_together(runs: list[dict]) -> None:
    """Raises ValueError where runs are of several data sets, or two of one name and seed."""
    data = {(run["data"]["name"], run["data"].get("fold")) for run in runs}
    if len(data) > 1:
        raise ValueError(
            f"runs on {sorted(data, key=str)} cannot share a table; collect them apart"
        )
    counts = collections.Counter((run["name"], run["seed"]) for run in runs)
    twice = [f"{name}, seed {seed}" for (name, seed), count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"several runs are of {twice}; they are no seeds: name one of each")


def metric(runs: list[dict]) -> str:
    """By what the runs are judged; ValueError where not all by the same."""
    found = {run["config"].get("metric", "pxap") for run in runs}
    if len(found) > 1:
        raise ValueError(f"runs judged by {sorted(found)} cannot share a table; collect them apart")
    return found.pop()


def gain(checkpoints: dict, run: dict, phase: str) -> float | None:
    """B-LOC PxAP of a second phase over the map that gave its seeds, in the same run."""
    if phase == "baseline" or not run["config"]["baseline"]:
        return None
    seeds = run["phases"]["baseline"]["maps"][run["config"]["baseline"]["cam"]]
    if "b_loc" not in checkpoints or "b_loc" not in seeds:
        return None
    return checkpoints["b_loc"]["test"]["pxap"] - seeds["b_loc"]["test"]["pxap"]


def official(config: dict, phase: str, name: str) -> str:
    """The paper's PxAP for a row, or nothing."""
    if "," in config["name"] or (config["baseline"] or {}).get("cam_workdir"):
        return ""  # a setting of an ablation, whose table has its own number
    second = {key: name == key for key in ("pixelcam", "negev")}
    if any(second.values()):
        name = config["baseline"]["cam"]
    elif phase != "baseline" and config["baseline"]:
        return ""  # a control, which the paper has not
    backbone, data = config["backbone"]["name"], config["data"]["name"]
    row = published.lookup(data=data, backbone=backbone, method=name, **second)
    return f"{row['pxap']:.1f}" if row else ""


def floors(runs: list[dict]) -> list[str]:
    """What maps score that have learnt nothing."""
    names = {name: [run["floors"][name] for run in runs] for name in runs[0]["floors"]}
    return [f"- {name.replace('_', ' ')}: {spread(values)}" for name, values in names.items()]


def spread(values: list[float | None]) -> str:
    """Mean and, of several, standard deviation; a dash where there is nothing."""
    if not values or None in values:
        return "\N{EN DASH}"
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def describe(runs: list[dict]) -> str:
    """What the runs have in common, and what was reduced."""
    starts = [start for run in runs for start in (run["record"], *run["record"]["earlier"])]
    total = sum(start.get("seconds", 0.0) for start in starts)
    least = "at least " * any("seconds" not in start for start in starts)  # some were killed
    commits = sorted({start["commit"] for start in starts})
    machines = sorted({machine(start) for start in starts})
    notes = sorted({note for run in runs for note in run["record"]["notes"]})
    weights = sorted({json.dumps(run["record"]["weights"]) for run in runs})
    return "\n".join(
        [
            f"# {runs[0]['data']['name']}, fold {runs[0]['data'].get('fold')}",
            "",
            f"Commit {', '.join(commits)}; {'; '.join(machines)}; {least}"
            f"{total / 3600:.1f} hours in all; "
            f"weights: {'; '.join(weights)}.",
            *[f"Reduced: {note}." for note in notes],
            EXPLAINED[metric(runs)],
        ]
    )


def machine(start: dict) -> str:
    """What one command of a run ran on."""
    return f"{start['device']}, {start['processor']}, jax {start['versions']['jax']}"


if __name__ == "__main__":
    main()
