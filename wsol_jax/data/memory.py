"""The input source for sets that fit in memory: NumPy and Pillow, no TensorFlow."""

import concurrent.futures
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from wsol_jax.data import pictures, splits


def open_split(
    examples: Sequence[splits.Example], *, sizing: pictures.Sizing, window: int
) -> splits.Split:
    """Reads every example now, in threads, and serves it from memory."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        read = pool.map(lambda example: pictures.resize(example.read(), sizing), examples)
        names = tuple(example.name for example in examples)
        labels = np.array([example.label for example in examples], np.int32)
        return serve(names, labels, read, window=window)


def serve(
    names: tuple[str, ...], labels: np.ndarray, read: Iterable[splits.Picture], *, window: int
) -> splits.Split:
    """A split of pictures that are already at their size: four bytes of memory per pixel."""
    size = len(names)
    images, masks = zip(*read, strict=True)
    shapes = [(i.shape[:2], m.shape) for i, m in zip(images, masks, strict=True)]
    sizes = np.array([image for image, _ in shapes], np.int32)
    largest = tuple(map(tuple, np.max(shapes, axis=0).tolist()))  # of the images, of the masks

    def batch(rows: np.ndarray, valid: np.ndarray, shape: tuple) -> splits.Batch:
        arrays = {"image": _padded(images, rows, shape[0]), "mask": _padded(masks, rows, shape[1])}
        arrays |= {"label": labels[rows], "index": rows.astype(np.int32)}
        for array in arrays.values():
            array[~valid] = 0
        return arrays | {"valid": valid}

    def padded_batch(rows: np.ndarray) -> splits.Batch:
        padded = batch(rows, np.ones_like(rows, bool), largest)
        return padded | {"size": sizes[rows]} if np.ptp(sizes, axis=0).any() else padded

    def shuffled(
        batch_size: int, *, seed: int, start: int = 0, hosts: splits.Hosts = (0, 1)
    ) -> Iterator[splits.Batch]:
        own = splits.host_rows(batch_size, hosts)
        order = splits.shuffled_rows(size, batch_size, seed=seed, start=start, window=window)
        return (padded_batch(rows[own]) for rows in order)

    def ordered(batch_size: int, *, hosts: splits.Hosts = (0, 1)) -> Iterator[splits.Batch]:
        own = splits.host_rows(batch_size, hosts)
        order = splits.ordered_rows(shapes, batch_size)
        return (batch(rows[own], valid[own], shapes[rows[0]]) for rows, valid in order)

    return splits.Split(size, names, labels, shuffled, ordered)


def _padded(
    arrays: Sequence[np.ndarray], rows: np.ndarray, shape: pictures.Shape
) -> UInt8[np.ndarray, "b H W *c"]:
    """The arrays of these rows, with zeros at the bottom and the right up to `shape`."""
    padded = np.zeros((len(rows), *shape, *arrays[0].shape[2:]), np.uint8)
    for target, array in zip(padded, (arrays[row] for row in rows), strict=True):
        target[: array.shape[0], : array.shape[1]] = array
    return padded
