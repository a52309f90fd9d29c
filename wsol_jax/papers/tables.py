"""A table of the papers, or of one's own: what it lacks is trained, then all is set beside it.

Every number says from how many seeds it is and what was reduced for it; what was not run is a dash.
"""

import collections
import logging
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from wsol_jax import (
    experiment,
    files,
    identity,
    logbook,
    published,
    report,
    run_files,
    train,
    transfer,
)
from wsol_jax.papers import cells, galleries, plan, typeset

HOUR = 3600.0


def run(config: Any, output: pathlib.Path) -> list[typeset.Cell]:
    """Plans a table, trains what it lacks for up to `config.budget` hours, and writes it.

    SIGTERM and the end of the budget save the run that is going on; the same command goes on from
    there. A run that fails is reported and left out.

    Args:
      config: see `configs/tables.py`.
      output: folder of table.md, table.csv and table.tex, and of a gallery for each data set.

    Returns:
      The numbers; none where `config.dry_run` asks for the plan alone.

    Raises:
      SystemExit: runs have failed; the table is written without them.
    """
    known = published.table(config.table) if config.table else cells.unpublished(config)
    wanted, folder = plan.needs(config), pathlib.Path(config.runs)
    at_hand = plan.shelf(folder)
    to_do = plan.jobs(wanted, at_hand, folder)
    for line in outlook(wanted, at_hand, to_do):
        logging.info("%s", line)
    if config.dry_run:
        return []
    deadline = time.monotonic() + config.budget * HOUR
    failed, deadline = _train(to_do, deadline)
    if to_do:
        at_hand = plan.shelf(folder)
    opened: dict = {}
    tested = [_transferred(need, at_hand, deadline, opened) for need in wanted]
    found, about = cells.of_table(known, tested, at_hand), provenance(tested, at_hand)
    typeset.write(output, known.source, found, about)
    for data, picture in galleries.of_table(tested, at_hand).items():
        with files.replacing(output / f"gallery_{data}.png") as path:
            path.write_bytes(picture)
    if failed:
        raise SystemExit(f"{failed} of {len(to_do)} runs failed, see above")
    return found


def outlook(
    wanted: Sequence[plan.Need], at_hand: plan.Shelf, to_do: Sequence[plan.Job]
) -> list[str]:
    """The plan in words, with what it should cost by the epochs of like runs at hand."""
    costs = [plan.seconds(job, at_hand) for job in to_do]
    lines = [
        f"{'goes on' if job.run else 'to train'}: {job.folder}, {_duration(cost)}"
        for job, cost in zip(to_do, costs, strict=True)
    ]
    blocked = collections.Counter(need.blocked for need in wanted if need.blocked)
    lines += [f"cannot be run: {count} of {len(wanted)}: {why}" for why, count in blocked.items()]
    done = sum(cells.origin(need, at_hand) is not None for need in wanted)
    unknown = f", {costs.count(None)} of unknown length" if None in costs else ""
    total = _duration(sum(cost for cost in costs if cost))
    lines.append(f"{done} of {len(wanted)} finished; {len(to_do)} to train: {total}{unknown}")
    return lines


def provenance(wanted: Sequence[plan.Need], at_hand: plan.Shelf) -> str:
    """How the runs of a table were made: how many, by which code, on what, in how much time."""
    phases = [phase for need in wanted if (phase := cells.origin(need, at_hand))]
    runs = {phase.run.folder: phase.run.record for phase in phases}
    if not runs:
        return "None of its runs is finished."
    return (
        f"{logbook.provenance(runs.values())}. Without (n=...) a number is of "
        "one seed, but for t and p, which are of all."
    )


def _transferred(need, at_hand, deadline, opened):
    """A need whose run has been tested on the other data, or that says why it has not.

    What has been written of the same images is kept. `opened` has the splits that were read, by
    target and by how a run sees it.
    """
    found = cells.origin(need, at_hand)
    if not (need.target and found):
        return need
    folder = found.run.folder
    try:
        images = identity.fingerprint(transfer.list_target(need.target))
        if run_files.read_json(transfer.path(folder, need.target)).get("fingerprint") == images:
            return need
        if time.monotonic() > deadline:
            return need._replace(blocked="not run: out of time")
        config = experiment.stored_config(folder)
        seen = [config[name] for name in ("image_size", "resize", "keep_aspect", "num_classes")]
        key = need.target.to_json(), *seen
        if key not in opened:
            opened[key] = transfer.open_target(config, need.target)
        transfer.run(config, folder, need.target, opened[key])
    except (ImportError, OSError, ValueError) as error:
        return need._replace(blocked=str(error))
    except Exception as error:  # whatever it was, the table is to be written
        logging.exception("%s on %s failed", folder, need.target.name)
        return need._replace(blocked=f"failed: {error}")
    return need


def _train(to_do, deadline):
    """Trains for as long as there is time; returns how many runs failed, and the deadline.

    That is now, where it was asked to stop.
    """
    failed = 0
    for job in to_do:
        if time.monotonic() > deadline:
            logging.warning("out of time: %s and what follows are left for later", job.folder)
            break
        try:
            train.run(job.config, job.folder, deadline=deadline)
            report.write(job.folder)
        except SystemExit:  # saved before its end, and it has said so
            return failed, time.monotonic()
        except Exception:  # whatever it was, the others can go on
            logging.exception("%s failed", job.folder)
            failed += 1
    return failed, deadline


def _duration(seconds):
    return "of unknown length" if seconds is None else f"about {logbook.duration(seconds)}"
