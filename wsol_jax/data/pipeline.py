"""The input source for sets of any size: records that TFDS has prepared, read by tf.data.

Examples come in order and still encoded, are permuted inside windows and batched; then the rows of
this host alone are decoded, in threads, by the very functions that the memory source uses. A split
that fits in memory is read in this way once and then served from there.
"""

import collections
import concurrent.futures
import functools
import io
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from wsol_jax.data import memory, pictures, splits

MEMORY = 4 << 30  # bytes a decoded split may take; one that needs more is streamed every epoch
AHEAD = 3  # batches that are decoded while one is used

Row = tuple[int, dict[str, Any]]  # position in the split, and an example with pictures as bytes
Shapes = tuple[pictures.Shape, pictures.Shape]  # of an image and its mask


def open_split(
    builder: tfds.core.DatasetBuilder, split: str, *, sizing: pictures.Sizing, window: int
) -> splits.Split:
    """A split that `builder` has prepared.

    Raises:
      ValueError: its pictures differ in shape, and it is too large to be kept.
    """
    names, labels, _ = listing(builder, split)
    encoded = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}
    windows = _records(builder, split, encoded).enumerate().batch(window).prefetch(1)
    shapes = _shapes(windows, len(names), sizing)
    decode = functools.partial(_example, sizing=sizing, shapes=shapes[0])
    needed = sum(3 * math.prod(image) + math.prod(mask) for image, mask in shapes)
    if needed > MEMORY:
        _require_one_shape(split, shapes, needed)
        return _stream(names, labels, windows, decode)
    examples = itertools.chain.from_iterable(_decoded(_batched(_in_order(windows), 64), decode))
    read = ((example["image"], example["mask"]) for example in examples)
    return memory.serve(names, labels, read, window=window)


def listing(builder: tfds.core.DatasetBuilder, split: str) -> splits.Listing:
    """Names and labels of a split that `builder` has prepared, its pictures left encoded."""
    wanted = tfds.decode.PartialDecoding({"name": True, "label": True})
    rows = list(_records(builder, split, wanted).as_numpy_iterator())
    labels = np.array([row["label"] for row in rows], np.int32)
    return splits.Listing(tuple(row["name"].decode() for row in rows), labels)


def _stream(
    names: tuple[str, ...], labels: np.ndarray, windows: tf.data.Dataset, decode: Callable
) -> splits.Split:
    """A split read anew in every epoch, some windows of encoded examples being held.

    Its examples must lie in a random order already: those of one window stay together.
    To resume inside an epoch its first examples are read again, but not decoded.
    """
    size = len(names)

    def shuffled(
        batch_size: int, *, seed: int, start: int = 0, hosts: splits.Hosts = (0, 1)
    ) -> Iterator[splits.Batch]:
        own = splits.host_rows(batch_size, hosts)
        first, skipped = divmod(start, splits.steps_per_epoch(size, batch_size))
        batches = (
            [rows[i % len(rows)] for i in range(batch_size)][own]  # the last repeats its own rows
            for epoch in itertools.count(first)
            for rows in _batched(_permuted(windows, seed, epoch), batch_size)
        )
        return map(_stacked, _decoded(itertools.islice(batches, skipped, None), decode))

    def ordered(batch_size: int, *, hosts: splits.Hosts = (0, 1)) -> Iterator[splits.Batch]:
        own = splits.host_rows(batch_size, hosts)
        batches = (
            (rows + [None] * (batch_size - len(rows)))[own]
            for rows in _batched(_in_order(windows), batch_size)
        )
        return map(_stacked, _decoded(batches, decode))

    return splits.Split(size, names, labels, shuffled, ordered)


def _shapes(windows: tf.data.Dataset, count: int, sizing: pictures.Sizing) -> list[Shapes]:
    """The shapes of every example once it is brought to size, read from headers if they differ."""
    if not (sizing.keep_aspect or sizing.original_mask):
        return [((sizing.side, sizing.side),) * 2] * count
    own = (
        [pictures.size(io.BytesIO(row[name]))[::-1] for name in ("image", "mask")]
        for _, row in _in_order(windows)
    )
    return [pictures.shapes(*shapes, sizing) for shapes in own]


def _require_one_shape(split: str, shapes: Sequence[Shapes], needed: int) -> None:
    different = sorted(set(shapes))
    if len(different) > 1:
        raise ValueError(
            f"the images and masks of {split!r} have {len(different)} shapes, {different[0]} to "
            f"{different[-1]}, and {needed} bytes, more than the {MEMORY} that are kept; only "
            "pictures of one shape are streamed: take source 'memory', or bring them to one"
        )


def _records(builder: tfds.core.DatasetBuilder, split: str, decoders: Any) -> tf.data.Dataset:
    """The records of a split, in its order."""
    read_config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    return builder.as_dataset(split=split, decoders=decoders, read_config=read_config)


def _in_order(windows: tf.data.Dataset) -> Iterator[Row]:
    for positions, rows in windows.as_numpy_iterator():
        yield from (_row(positions, rows, i) for i in range(len(positions)))


def _permuted(windows: tf.data.Dataset, seed: int, epoch: int) -> Iterator[Row]:
    for number, (positions, rows) in enumerate(windows.as_numpy_iterator()):
        order = splits.permutation(len(positions), seed=seed, epoch=epoch, number=number)
        yield from (_row(positions, rows, i) for i in order)


def _row(positions: np.ndarray, rows: dict[str, np.ndarray], i: int | np.integer) -> Row:
    return int(positions[i]), {name: values[i] for name, values in rows.items()}


def _batched(rows: Iterator[Row], batch_size: int) -> Iterator[list[Row]]:
    while batch := list(itertools.islice(rows, batch_size)):
        yield batch


def _decoded(
    batches: Iterable[list[Row | None]], decode: Callable[[Row | None], splits.Batch]
) -> Iterator[list[splits.Batch]]:
    """The decoded examples of every batch in order, the next ones in work.

    In threads, not in tf.data: a Python function in an endless tf.data pipeline can keep the
    interpreter from exiting, and Pillow decodes and resizes with the interpreter lock released.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = collections.deque()
        for rows in batches:
            waiting.append([pool.submit(decode, row) for row in rows])
            if len(waiting) > AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]


def _example(row: Row | None, *, sizing: pictures.Sizing, shapes: Shapes) -> splits.Batch:
    """One decoded example; for a row of padding zeros of these `shapes`."""
    if row is None:
        image, mask = shapes
        picture = np.zeros((*image, 3), np.uint8), np.zeros(mask, np.uint8)
        label, position = 0, 0
    else:
        position, encoded = row
        picture = pictures.read(io.BytesIO(encoded["image"]), io.BytesIO(encoded["mask"]))
        picture, label = pictures.resize(picture, sizing), encoded["label"]
    return {
        "image": picture[0],
        "mask": picture[1],
        "label": np.int32(label),
        "index": np.int32(position),
        "valid": np.bool_(row is not None),
    }


def _stacked(examples: list[splits.Batch]) -> splits.Batch:
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
