"""Resizing, normalising and gathering of maps: the few array operations every method shares.

Maps are resized by two small matrix products, one per axis, so that every convention (half-pixel
centres, aligned corners) is one matrix and its gradient is a matrix product too.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped


def in_single_precision(function: Callable) -> Callable:
    """The function with single precision's products; a TPU, left alone, rounds their factors.

    What "high" is elsewhere: float32 on a CPU, at least TF32 on a GPU, as its default is.
    """

    @functools.wraps(function)
    def traced(*args):
        with jax.default_matmul_precision("high"):
            return function(*args)

    return traced


def wide(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """In single precision, or in double where it is that."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def resize(
    images: Float[Array, "b h w c"], shape: tuple[int, int], *, align_corners: bool = False
) -> Float[Array, "b H W c"]:
    """Bilinear interpolation to `shape`, without antialiasing.

    Output pixel i reads the input at (i + 1/2) h / H - 1/2, or at i (h - 1) / (H - 1) where the
    corners are aligned; positions outside the input take its border.
    """
    _, height, width, _ = images.shape
    rows = jnp.asarray(_interpolation(height, shape[0], align_corners), images.dtype)
    columns = jnp.asarray(_interpolation(width, shape[1], align_corners), images.dtype)
    return jnp.einsum("Hh,bhwc,Ww->bHWc", rows, images, columns, precision="highest")


def resize_maps(
    maps: Float[Array, "b h w"], shape: tuple[int, int], *, align_corners: bool = False
) -> Float[Array, "b H W"]:
    """Bilinear interpolation of one-channel maps."""
    return resize(maps[..., None], shape, align_corners=align_corners)[..., 0]


def resize_nearest(
    images: Shaped[Array, "b h w *c"], shape: tuple[int, int]
) -> Shaped[Array, "b H W *c"]:
    """Nearest neighbour: output pixel i takes input pixel floor(i h / H)."""
    rows = np.arange(shape[0]) * images.shape[1] // shape[0]
    columns = np.arange(shape[1]) * images.shape[2] // shape[1]
    return images[:, rows[:, None], columns[None, :]]


def doubled(images: Float[Array, "b h w c"]) -> Float[Array, "b H W c"]:
    """Nearest neighbour to twice the size; the gradient is a sum, where indexing has a scatter."""
    return images.repeat(2, axis=1).repeat(2, axis=2)


def gather_bilinear(
    maps: Float[Array, "b h w c"], points: Int[Array, "b n 2"], shape: tuple[int, int]
) -> Float[Array, "b n c"]:
    """`resize(maps, shape)` read at `points` (row, column), without making the large map.

    Equal to resizing and indexing; the memory does not depend on `shape`.
    """
    _, height, width, _ = maps.shape
    rows = jnp.asarray(_interpolation(height, shape[0], align_corners=False), maps.dtype)
    columns = jnp.asarray(_interpolation(width, shape[1], align_corners=False), maps.dtype)
    weights = rows[points[..., 0]][..., None] * columns[points[..., 1]][..., None, :]
    return jnp.einsum("bnhw,bhwc->bnc", weights, maps, precision="highest")


def min_max(maps: Float[Array, "b h w"]) -> Float[Array, "b h w"]:
    """Each map stretched to [0, 1] by its own minimum and maximum.

    Constant maps become zero, and so do maps that have a value which is not finite.
    """
    low = jnp.min(maps, axis=(1, 2), keepdims=True)
    shifted = maps - low
    stretched = shifted / jnp.max(shifted, axis=(1, 2), keepdims=True)
    # A compiler may round the map and its minimum differently.
    return jnp.clip(jnp.nan_to_num(stretched), 0, 1)


def split_keys(keys: Key[Array, "b"] | None, count: int) -> list[Any]:
    """`count` independent keys of each image; None for each where there are none."""
    if keys is None:
        return [None] * count
    return list(jax.vmap(jax.random.split, (0, None), 1)(keys, count))


def drop_channels(
    features: Float[Array, "b h w c"], keys: Key[Array, "b"], rate: float
) -> Float[Array, "b h w c"]:
    """Spatial dropout: zero whole channels with probability `rate`, scale the rest by 1/(1 - rate).

    Each image draws from its own key, so the draw does not depend on how a batch is sharded.
    """
    return _drop(features, keys, rate, (1, 1, features.shape[-1]))


def dropout(x: Float[Array, "b *n"], keys: Key[Array, "b"], rate: float) -> Float[Array, "b *n"]:
    """Dropout of single elements, drawn for each image from its own key."""
    return _drop(x, keys, rate, x.shape[1:])


def drop_path(x: Float[Array, "b *n"], keys: Key[Array, "b"], rate: float) -> Float[Array, "b *n"]:
    """Stochastic depth (Huang et al., ECCV 2016): whole images, the kept scaled by 1/(1 - rate)."""
    return _drop(x, keys, rate, (1,) * (x.ndim - 1))


def _drop(x, keys, rate, shape):
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, shape))(keys)
    return jnp.where(kept, x / (1 - rate), 0)


def _interpolation(size: int, target: int, align_corners: bool) -> Float[np.ndarray, "target size"]:
    """Matrix of the bilinear weights from `size` samples to `target` samples."""
    if align_corners:
        positions = np.linspace(0.0, size - 1.0, target)
    else:
        positions = (np.arange(target) + 0.5) * (size / target) - 0.5
    positions = np.clip(positions, 0, size - 1)
    distance = np.abs(positions[:, None] - np.arange(size)[None, :])
    return np.maximum(0.0, 1.0 - distance)
