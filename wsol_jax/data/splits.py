"""What every input source gives: the batches of one split, and the order its examples come in.

The order is computed here alone, with NumPy, so that every source gives equal batches.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

WINDOW = 8192  # examples that are shuffled together, and held in memory by a streaming source

Batch = dict[str, np.ndarray]
Picture = tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]
Rows = Int[np.ndarray, "b"]
Hosts = tuple[int, int]


class Example(NamedTuple):
    """One image of a split: its name, its class, and how to read its image and instance mask."""

    name: str
    label: int
    read: Callable[[], Picture]


class Split(NamedTuple):
    """A split of a data set, ready to be drawn from in batches.

    A batch holds image uint8 (b H W 3), mask uint8 (b H W) with 1 for the object, label int32 (b),
    index int32 (b), which is the position in `names`, and valid bool (b). Batch sizes count all
    hosts together; host `hosts[0]` of `hosts[1]` is given its consecutive share of every batch.

    Attributes:
      names, labels: of the examples, in the order of the split.
      shuffled: `(batch_size, *, seed, start=0, hosts=(0, 1))`, endless batches from step `start`.
        Every epoch is a permutation that depends only on seed, epoch, size and window; its last
        batch is filled up with its own samples in turn, as in the released code.
      ordered: `(batch_size, *, hosts=(0, 1))`, every example once, in order; the last batch is
        padded with zeros, `valid` False.
    """

    size: int
    names: tuple[str, ...]
    labels: Int32[np.ndarray, "n"]
    shuffled: Callable[..., Iterator[Batch]]
    ordered: Callable[..., Iterator[Batch]]


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Batches that hold every example of a split once, the last one perhaps in part."""
    return -(-size // batch_size)


def permutation(length: int, *, seed: int, epoch: int, number: int) -> Int[np.ndarray, "n"]:
    """The order of the `length` examples of the window `number` of a split."""
    return np.random.default_rng([seed, epoch, number]).permutation(length)


def shuffled_rows(
    size: int, batch_size: int, *, seed: int, start: int, window: int
) -> Iterator[Rows]:
    """Positions of the examples of every batch from step `start` on, without end."""
    first_epoch, skipped = divmod(start, steps_per_epoch(size, batch_size))
    for epoch in itertools.count(first_epoch):
        windows = enumerate(range(0, size, window))
        order = np.concatenate(
            [
                i + permutation(min(window, size - i), seed=seed, epoch=epoch, number=n)
                for n, i in windows
            ]
        )
        for first in range(skipped * batch_size, size, batch_size):
            yield np.resize(order[first : first + batch_size], batch_size)  # repeats in turn
        skipped = 0


def ordered_rows(size: int, batch_size: int) -> Iterator[tuple[Rows, Bool[np.ndarray, "b"]]]:
    """Positions of every example once and which rows are valid, the last batch filled with 0."""
    for first in range(0, size, batch_size):
        row = np.arange(first, first + batch_size)
        yield np.where(row < size, row, 0), row < size


def host_rows(batch_size: int, hosts: Hosts) -> slice:
    """The rows of a global batch that belong to host `hosts[0]` of `hosts[1]`."""
    host, count = hosts
    if not 0 <= host < count:
        raise ValueError(f"host {host} of {count}: a host is numbered from 0 to {count - 1}")
    if batch_size < 1 or batch_size % count:
        raise ValueError(
            f"batch_size {batch_size} is for all {count} hosts together and must be a positive "
            f"multiple of {count}; try {max(1, round(batch_size / count)) * count}"
        )
    share = batch_size // count
    return slice(host * share, (host + 1) * share)
