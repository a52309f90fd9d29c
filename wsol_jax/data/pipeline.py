"""The input source for sets of any size: records that TFDS has prepared, read by tf.data.

Examples come in order and still encoded, are permuted inside windows and batched; then the rows of
this host alone are decoded, in threads, by the very functions that the memory source uses. A split
that fits in memory is read in this way once and then served from there.
"""

import collections
import concurrent.futures
import io
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from wsol_jax.data import memory, pictures, splits

MEMORY = 4 << 30  # bytes a decoded split may take; one that needs more is streamed every epoch
AHEAD = 3  # batches that are decoded while one is used

Row = tuple[int, dict[str, Any]]  # position in the split, and an example with pictures as bytes


def open_split(
    builder: tfds.core.DatasetBuilder, split: str, *, image_size: int, window: int
) -> splits.Split:
    """A split that `builder` has prepared."""
    names, labels = _listing(builder, split)
    encoded = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}
    windows = _records(builder, split, encoded).enumerate().batch(window).prefetch(1)
    streamed = _stream(names, labels, windows, image_size)
    if 4 * len(names) * image_size**2 > MEMORY:
        return streamed
    decoded = (
        (batch["image"][i], batch["mask"][i])
        for batch in streamed.ordered(64)
        for i in np.flatnonzero(batch["valid"])
    )
    return memory.serve(names, labels, decoded, image_size=image_size, window=window)


def _stream(
    names: tuple[str, ...], labels: np.ndarray, windows: tf.data.Dataset, image_size: int
) -> splits.Split:
    """A split read anew in every epoch, two windows of encoded examples being held.

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
        return _decoded(itertools.islice(batches, skipped, None), image_size)

    def ordered(batch_size: int, *, hosts: splits.Hosts = (0, 1)) -> Iterator[splits.Batch]:
        own = splits.host_rows(batch_size, hosts)
        batches = (
            (rows + [None] * (batch_size - len(rows)))[own]
            for rows in _batched(_in_order(windows), batch_size)
        )
        return _decoded(batches, image_size)

    return splits.Split(size, names, labels, shuffled, ordered)


def _listing(builder: tfds.core.DatasetBuilder, split: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and labels of a split, its pictures left unread."""
    wanted = tfds.decode.PartialDecoding({"name": True, "label": True})
    rows = list(_records(builder, split, wanted).as_numpy_iterator())
    labels = np.array([row["label"] for row in rows], np.int32)
    return tuple(row["name"].decode() for row in rows), labels


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


def _decoded(batches: Iterable[list[Row | None]], image_size: int) -> Iterator[splits.Batch]:
    """Batches in order, the next ones in work.

    In threads, not in tf.data: a Python function in an endless tf.data pipeline can keep the
    interpreter from exiting, and Pillow decodes and resizes with the interpreter lock released.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = collections.deque()
        for rows in batches:
            waiting.append([pool.submit(_example, row, image_size) for row in rows])
            if len(waiting) > AHEAD:
                yield _stacked(waiting.popleft())
        while waiting:
            yield _stacked(waiting.popleft())


def _example(row: Row | None, image_size: int) -> splits.Batch:
    """One decoded example, all zeros for a row of padding."""
    if row is None:
        image = np.zeros((image_size, image_size, 3), np.uint8)
        picture, label, position = (image, image[..., 0]), 0, 0
    else:
        position, encoded = row
        picture = pictures.read(io.BytesIO(encoded["image"]), io.BytesIO(encoded["mask"]))
        picture, label = pictures.resize(picture, image_size), encoded["label"]
    return {
        "image": picture[0],
        "mask": picture[1],
        "label": np.int32(label),
        "index": np.int32(position),
        "valid": np.bool_(row is not None),
    }


def _stacked(futures: list[concurrent.futures.Future]) -> splits.Batch:
    examples = [future.result() for future in futures]
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
