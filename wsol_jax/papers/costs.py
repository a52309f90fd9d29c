"""What every row of a table costs on this machine: its parameters, and the time to a map.

A row is one jitted call from images on the device to class logits and maps of the published size,
timed on one image, as published, and on a batch. Weights are random: time does not depend on them.
"""

import functools
import logging
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsol_jax import cpu, evaluate, experiment, logbook, published
from wsol_jax.papers import typeset

SMOOTHING = 9  # fixed values of SAT's kernel, which the published counts include
UNITS = {"milliseconds": 1e3, "seconds": 1.0}  # of a second


class Row(NamedTuple):
    """A row's number of parameters, and its calls by the number of images they map."""

    parameters: int
    calls: dict[int, Callable[[], Any]]


def run(config: Any, output: pathlib.Path) -> list[typeset.Cell]:
    """Measures a table's rows and writes them beside the published ones.

    Args:
      config: see `configs.tables.costs`.
      output: folder of table.md, table.csv and table.tex.

    Returns:
      The numbers; none where `config.dry_run` asks for the plan alone.
    """
    if config.dry_run:
        rows = ", ".join(cell.row for cell in config.cells)
        logging.info("to be timed, %d calls of each: %s", config.rounds, rows)
        return []
    if config.batch_size < 2:
        raise ValueError(
            f"batch_size {config.batch_size}: expected 2 or more, to stand beside one image alone"
        )
    known = published.table(config.table)
    (unit,) = UNITS.keys() & set(known.columns)
    rows = {cell.row: _row(cell.run, config) for cell in config.cells}
    seconds = timed({name: row.calls for name, row in rows.items()}, config.rounds)
    found = []
    for name, row in rows.items():
        theirs = dict(zip(known.columns, known.rows[name], strict=True))
        one, of_batch = (UNITS[unit] * taken for taken in seconds[name].values())
        ours = {"parameters": row.parameters, unit: one, f"{unit}_batch": of_batch}
        found += [
            typeset.Cell(name, "", quantity, theirs.get(quantity), (value,))
            for quantity, value in ours.items()
        ]
    typeset.write(output, known.source, found, _about(config))
    return found


def fixed(run_config: Any) -> int:
    """Values that a run's model has but does not train, which the papers count."""
    sections = experiment.sections(run_config).values()
    return SMOOTHING * any(section.method.name == "sat" for section in sections)


def timed(
    rows: dict[str, dict[int, Callable[[], Any]]], rounds: int
) -> dict[str, dict[int, float]]:
    """Median seconds an image of each row's calls.

    The rows take turns, so that a machine's slow minutes fall on all of them.
    """
    taken = {name: {count: [] for count in calls} for name, calls in rows.items()}
    for _ in range(rounds):
        for name, calls in rows.items():
            for count, call in calls.items():
                began = time.perf_counter()
                jax.block_until_ready(call())
                taken[name][count].append((time.perf_counter() - began) / count)
    return {
        name: {count: statistics.median(seconds) for count, seconds in of_row.items()}
        for name, of_row in taken.items()
    }


def _row(run_config, config):
    """A row's parameters, and its compiled calls on one image and on a batch."""
    logging.info("compiling %s", run_config.name)
    method = experiment.build(run_config, run_config.method)
    variables = jax.device_put(experiment.initialize(run_config, method))
    count = sum(x.size for x in jax.tree.leaves(variables["params"])) + fixed(run_config)
    localize = _localize(method, config.mapped, run_config.metric)
    calls = {}
    for images in (1, config.batch_size):
        image = jax.random.normal(jax.random.key(0), (images, *config.seen, 3))
        calls[images] = functools.partial(localize, variables, image, jnp.arange(images) % 2)
        jax.block_until_ready(calls[images]())
    return Row(count, calls)


def _localize(method, size, metric):
    """Logits, and maps of the published size, in one call."""

    @functools.partial(jax.jit, compiler_options=cpu.compiler_options())
    def localize(variables, image, label):
        logits, maps = method.localize(variables, image, label)
        return logits, {k: evaluate.to_size(low, size, metric) for k, low in maps.items()}

    return localize


def _about(config):
    """How the numbers were made."""
    record = logbook.record()
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"Medians of {config.rounds} calls, the rows taking turns, on one image and on batches of "
        f"{config.batch_size}; {record['device']}, {record['processor']}; "
        f"{record['started'][:10]}, commit {record['commit']}; {versions}. {config.note}"
    )
