"""What every input source gives: the batches of one split, and the order its examples come in.

The order is computed here alone, with NumPy, so that every source gives equal batches.
"""

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

from wsol_jax import pixel_labels

# Examples that are shuffled together. A streaming source holds about four windows of encoded ones.
WINDOW = 2048
READ = 32  # examples that are read at a time where they are used one by one

Batch = dict[str, np.ndarray]
Mask = UInt8[np.ndarray, "_ _"]
Picture = tuple[UInt8[np.ndarray, "_ _ 3"], Mask | None]  # image and mask, of any size
Rows = Int[np.ndarray, "b"]
Hosts = tuple[int, int]


class Example(NamedTuple):
    """One image of a split: its name, its class, and how to read its image and instance mask.

    The mask is None where there is none.

    Attributes:
      content: a digest of the image's file, where other images may come to bear the same name.
    """

    name: str
    label: int
    read: Callable[[], Picture]
    content: str = ""


class Listing(NamedTuple):
    """Names and labels of the examples of a split, in its order, and contents if they are known."""

    names: tuple[str, ...]
    labels: Int32[np.ndarray, "n"]
    contents: tuple[str, ...] = ()


class Split(NamedTuple):
    """A split of a data set, ready to be drawn from in batches.

    A batch holds image uint8 (b H W 3), mask uint8 (b H W) with 1 for the object and 255 all over
    where there is no mask, label int32 (b), index int32 (b), which is the position in `names`, and
    valid bool (b). Masks that keep their own size have another H and W. Batch sizes count all hosts
    together; host `hosts[0]` of `hosts[1]` is given its consecutive share of every batch, of the
    shape that all hosts have.

    Attributes:
      names, labels: of the examples, in the order of the split.
      shuffled: `(batch_size, *, seed, start=0, hosts=(0, 1))`, endless batches from step `start`.
        Every epoch is a permutation that depends only on seed, epoch, size and window; its last
        batch is filled up with its own samples in turn, as in the released code. Where images
        differ in shape, all are padded with zeros at the bottom and the right to the largest height
        and width of the split, and `size` int32 (b 2) is the height and width of each.
      ordered: `(batch_size, *, hosts=(0, 1))`, every example once. A batch holds images of one
        shape, unpadded; the shapes come in the order of their first example, the examples of a
        shape in order, so that one shape is the order of the split, and else `index` says which
        image a row is. The last batch of a shape is padded with zeros, `valid` False.
      contents: digests of the images' files, if they are known.
    """

    size: int
    names: tuple[str, ...]
    labels: Int32[np.ndarray, "n"]
    shuffled: Callable[..., Iterator[Batch]]
    ordered: Callable[..., Iterator[Batch]]
    contents: tuple[str, ...] = ()


def rows(split: Split) -> Iterator[dict[str, np.ndarray]]:
    """The examples of a split one by one: the valid rows of its ordered batches."""
    for batch in split.ordered(min(split.size, READ)):
        for row in np.flatnonzero(batch["valid"]):
            yield {name: values[row] for name, values in batch.items()}


def is_annotated(split: Split) -> bool:
    """Whether any pixel of a split has a label."""
    return any(np.any(row["mask"] != pixel_labels.UNANNOTATED) for row in rows(split))


def has_object(split: Split) -> bool:
    """Whether any pixel of a split is of an object."""
    return any(np.any(row["mask"] == 1) for row in rows(split))


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


def ordered_rows(
    shapes: Sequence[Hashable], batch_size: int
) -> Iterator[tuple[Rows, Bool[np.ndarray, "b"]]]:
    """Positions of every example once, and which rows of the batch are valid.

    A batch is of one of the `shapes`, which are those of the examples in order; the last batch of
    a shape is filled with its first example.
    """
    alike: dict[Hashable, list[int]] = {}
    for position, shape in enumerate(shapes):
        alike.setdefault(shape, []).append(position)
    for positions in alike.values():
        for first in range(0, len(positions), batch_size):
            row = np.arange(first, first + batch_size)
            valid = row < len(positions)
            yield np.asarray(positions)[np.where(valid, row, 0)], valid


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
