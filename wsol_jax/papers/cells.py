"""The numbers of a table: from the runs at hand, beside the published ones."""

import collections
import pathlib
from collections.abc import Sequence
from typing import Any

from wsol_jax import map_kinds, published, run_files, significance, transfer
from wsol_jax.papers import plan
from wsol_jax.papers.typeset import Cell
from wsol_jax.run_files import at

RATES = ("tp", "fn", "tn", "fp")  # at the threshold that is best on the test split, as published
SEPARABILITY = {"j_benign": "0", "j_malignant": "1", "j_metastatic": "1", "j_all": "all"}
ALL_ONES = "all_ones"
TESTED = ("t", "p")  # of the PxAP of runs of two phases against those of their baselines


def of_table(
    known: published.Table, wanted: Sequence[plan.Need], at_hand: plan.Shelf
) -> list[Cell]:
    """Every number of a published table, of the data wanted, with those of the runs at hand."""
    needed = collections.defaultdict(list)
    for need in wanted:
        needed[need.row, need.data].append(need)
    of_interest = {need.data for need in wanted}
    found = []
    for row, numbers in known.rows.items():
        for column, number in zip(known.columns, numbers, strict=True):
            data, _, quantity = column.rpartition("/")
            if data in of_interest:
                fill = _fill(row, quantity)
                of_row = wanted if row == ALL_ONES else needed[row, data]
                found.append(fill(Cell(row, data, quantity, number), of_row, at_hand))
    return found


def unpublished(config: Any) -> published.Table:
    """A table that no paper has: a row for each of a config's cells, a column for each score."""
    data = dict.fromkeys(cell.data for cell in config.cells)
    scores = dict.fromkeys(s for cell in config.cells for s in map_kinds.SCORES[cell.run.metric])
    columns = tuple(f"{name}/{score}" for name in data for score in scores)
    return published.Table(
        config.name, columns, {c.row: (None,) * len(columns) for c in config.cells}
    )


def origin(need: plan.Need, at_hand: plan.Shelf) -> plan.Found | None:
    """The finished phase that has what is needed."""
    return plan.finished(need.addresses[-1], need.name, at_hand) if need.addresses else None


def _fill(row, quantity):
    if row == ALL_ONES:
        return _floor
    return _tested if quantity in TESTED else _averaged


def _floor(cell, wanted, at_hand):
    """A cell of the map that is all foreground, which every run scores on its test images."""
    phases = filter(None, (origin(need, at_hand) for need in wanted))
    score = next((at(phase.run.metrics, "floors", "all_foreground") for phase in phases), None)
    known = {"f1_foreground": score, "f1_background": 0.0} if score is not None else {}
    if cell.quantity in known:
        return cell._replace(values=(known[cell.quantity],))
    return cell if cell.paper is None else cell._replace(remarks=_reasons(cell, wanted, at_hand))


def _averaged(cell, needed, at_hand):
    """A cell with a number from every seed."""
    scored = _scored(needed, at_hand, cell.quantity)
    return cell._replace(
        values=tuple(value for *_, value in scored),
        remarks=_reductions(scored) if scored else _reasons(cell, needed, at_hand),
        runs=tuple(str(found.run.folder) for _, found, _ in scored),
    )


def _tested(cell, needed, at_hand):
    """A cell with t or p of a t-test over the seeds."""
    scored = _scored(needed, at_hand, "pxap")
    groups = [
        [value for need, _, value in scored if bool(need.config.baseline) == second]
        for second in (True, False)
    ]
    if min(map(len, groups)) < 2:
        return cell._replace(remarks=_reasons(cell, needed, at_hand))
    try:
        test = significance.t_test(*groups)
    except ValueError as error:
        return cell._replace(remarks=(str(error),))
    counts = " against ".join(str(len(group)) for group in groups)
    tested = (
        f"{cell.row}, {cell.data}: {counts} runs; PxAP {test.difference.value:+.1f} "
        f"(95 %: {test.difference.low:+.1f} to {test.difference.high:+.1f}), Cohen's d "
        f"{test.effect:.1f}"
    )
    return cell._replace(
        values=(getattr(test, cell.quantity),),
        remarks=(tested, *_reductions(scored)),
        runs=tuple(str(found.run.folder) for _, found, _ in scored),
    )


def _scored(needed, at_hand, quantity):
    """Need, phase and number of whatever has that number."""
    pairs = [(need, origin(need, at_hand)) for need in needed if not need.blocked]
    scored = [(need, found, _score(need, found, quantity)) for need, found in pairs if found]
    return [entry for entry in scored if entry[2] is not None]


def _score(need, found, quantity):
    """A quantity on the test split, at the checkpoint that the paper reports."""
    results = found.maps[need.name]
    if need.target:
        shifted = run_files.read_json(transfer.path(found.run.folder, need.target))
        results = at(shifted, "phases", found.phase, "maps", need.name) or {}
    test = at(results, published.reported(need.config.metric, results), "test") or {}
    if quantity == "error":
        return None if test.get("accuracy") is None else 100 - test["accuracy"]
    if quantity in SEPARABILITY:
        return at(test, "separability", SEPARABILITY[quantity])
    return at(test, "at_best_test_threshold", quantity) if quantity in RATES else test.get(quantity)


def _reasons(cell, needed, at_hand):
    """Why there is no number; none where no paper has one and the runs that would are finished."""
    blocked = dict.fromkeys(need.blocked for need in needed if need.blocked)
    finished = all(origin(need, at_hand) for need in needed)
    if finished and cell.paper is None:
        return ()
    if blocked or not (finished and needed) or cell.quantity in TESTED:
        return tuple(blocked) or ("not run",)
    return (f"its runs have no {cell.quantity} in metrics.json; --mode=evaluate may add it",)


def _reductions(scored):
    """What the runs had less of than the published ones."""
    found = {}
    for need, phase, _ in scored:
        record = phase.run.record
        weights, usual = record["weights"], pathlib.PurePath(need.usual.weights.source).name
        found |= dict.fromkeys((*record["notes"], *need.config.notes))
        if need.target and need.target.get("test_patches"):
            found[f"{need.target.test_patches} test patches, others than the paper's"] = None
        if (weights["source"] or "") != usual:
            found[f"weights: {weights['source'] or 'random'} in place of {usual}"] = None
        if weights.get("allow_missing"):
            found[f"weights: {len(weights['allow_missing'])} tensors random"] = None
        for key, value in need.config.backbone.items():
            if value != need.usual.backbone.get(key):
                change = f"{key} {value} in place of {need.usual.backbone.get(key)}"
                found[f"encoder: {change}"] = None
        if published.reported(need.config.metric, phase.maps[need.name]) == "last":
            found["the last epoch: no validation image has pixel labels"] = None
    return tuple(found)
