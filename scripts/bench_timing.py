"""How `bench.py` measures: processes of their own, functions in turns, medians of ratios."""

import concurrent.futures
import multiprocessing
import statistics
import time

import jax

from wsol_jax import cpu

SLICE = 8  # images whose features a CPU's caches hold better than those of 32


def alone(part, *arguments):
    """The rows of a part, measured in a process of its own.

    Memory that another part has used, and threads that it has left, slow down what comes after.
    """
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as executor:
        return executor.submit(rows_of, part, *arguments).result()


def rows_of(part, *arguments):
    """The rows of a part, with memory kept as in training."""
    cpu.keep_memory()
    return list(part(*arguments))


def in_turns(rounds, **functions):
    """Seconds of each function, in turns, after one turn that is not counted."""
    seconds = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def median_ratio(above, below):
    """Median of the ratios of neighbouring measurements."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def ways(function, *arrays):
    """The same work as one call, and as calls of `SLICE` rows."""
    count = len(arrays[0])
    slices = [slice(i, i + SLICE) for i in range(0, count, SLICE)]
    return {
        f"{count} at once": lambda: function(*arrays),
        f"{SLICE} at a time": lambda: [function(*(a[s] for a in arrays)) for s in slices],
    }


def fastest(seconds, side):
    """The name of the side's way with the least median time."""
    names = [name for name in seconds if name.startswith(side)]
    return min(names, key=lambda name: statistics.median(seconds[name]))


def run_and_wait(function, *arguments):
    """Calls a jitted function and waits for its result."""
    return jax.block_until_ready(function(*arguments))
