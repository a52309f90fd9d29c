"""The input source for sets that fit in memory: NumPy and Pillow, no TensorFlow."""

import concurrent.futures
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from wsol_jax.data import pictures, splits


def open_split(examples: Sequence[splits.Example], *, image_size: int, window: int) -> splits.Split:
    """Reads every example now, in threads, and serves it from memory."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        read = pool.map(lambda example: pictures.resize(example.read(), image_size), examples)
        names = tuple(example.name for example in examples)
        labels = np.array([example.label for example in examples], np.int32)
        return serve(names, labels, read, image_size=image_size, window=window)


def serve(
    names: tuple[str, ...],
    labels: np.ndarray,
    read: Iterable[splits.Picture],
    *,
    image_size: int,
    window: int,
) -> splits.Split:
    """A split of pictures that are already at their size: four bytes of memory per pixel."""
    size = len(names)
    images = np.empty((size, image_size, image_size, 3), np.uint8)
    masks = np.empty((size, image_size, image_size), np.uint8)
    for i, picture in enumerate(read):
        images[i], masks[i] = picture

    def batch(rows: np.ndarray, valid: np.ndarray) -> splits.Batch:
        arrays = {"image": images.take(rows, axis=0), "mask": masks.take(rows, axis=0)}
        arrays |= {"label": labels[rows], "index": rows.astype(np.int32)}
        for array in arrays.values():
            array[~valid] = 0
        return arrays | {"valid": valid}

    def shuffled(
        batch_size: int, *, seed: int, start: int = 0, hosts: splits.Hosts = (0, 1)
    ) -> Iterator[splits.Batch]:
        own = splits.host_rows(batch_size, hosts)
        order = splits.shuffled_rows(size, batch_size, seed=seed, start=start, window=window)
        return (batch(rows[own], np.ones_like(rows[own], bool)) for rows in order)

    def ordered(batch_size: int, *, hosts: splits.Hosts = (0, 1)) -> Iterator[splits.Batch]:
        own = splits.host_rows(batch_size, hosts)
        order = splits.ordered_rows(size, batch_size)
        return (batch(rows[own], valid[own]) for rows, valid in order)

    return splits.Split(size, names, labels, shuffled, ordered)
