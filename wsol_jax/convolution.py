"""Convolution whose gradient is fast on CPUs, where XLA's own takes most of a training step.

A drop-in for `jax.lax.conv_general_dilated` in `flax.linen.Conv(conv_general_dilated=...)`. Other
platforms keep XLA's gradients: the choice falls when a program is lowered, so one exported step
still runs everywhere. First derivatives only.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

LAYOUT = ("NHWC", "HWIO", "NHWC")
Pair = tuple[int, int]


def conv_general_dilated(
    lhs: Float[Array, "b h w c"],
    rhs: Float[Array, "u v _ d"],
    window_strides: Pair,
    padding: Any,
    lhs_dilation: Pair | None = None,
    rhs_dilation: Pair | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> Float[Array, "b i j d"]:
    """y[b,i,j] = sum_uv x[b, i s + u - p, j s + v - p] w[u,v], as `lax.conv_general_dilated`.

    Plain two-dimensional convolutions, one group and no dilation, get the fast gradient; all others
    are handed on.
    """
    dilated = any(d != 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
    if dilated or feature_group_count != 1:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            **options,
        )
    strides, kernel = tuple(window_strides), rhs.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], kernel, strides, padding)
    return _convolve(lhs, rhs, strides, tuple((int(a), int(b)) for a, b in padding))


def max_pool(
    x: Float[Array, "b h w c"], *, window: int, stride: int, padding: int
) -> Float[Array, "b i j c"]:
    """Maximum over square windows; the padding never wins."""
    borders = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    sizes, strides = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, sizes, strides, borders)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def _forward(x, kernel, strides, padding):
    return _convolve(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, saved, dy):
    fast = functools.partial(_matmul_gradients, strides=strides, padding=padding)
    own = functools.partial(_xla_gradients, strides=strides, padding=padding)
    return lax.platform_dependent(*saved, dy, cpu=fast, default=own)


_convolve.defvjp(_forward, _backward)


def _xla_gradients(x, kernel, dy, *, strides, padding):
    convolve = functools.partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        dimension_numbers=LAYOUT,
    )
    return jax.vjp(convolve, x, kernel)[1](dy)


def _matmul_gradients(x, kernel, dy, *, strides, padding):
    """One matrix product per kernel tap for the weights, a convolution of dy for the input.

    dw[u,v] = sum_bij x[b, i s + u - p, j s + v - p]^T dy[b,i,j]
    dx = the convolution of dy, its samples set s apart, with the kernel turned by 180 degrees.
    """
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        return _pointwise_gradients(x, kernel, dy, strides)
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows = _flat(dy)
    taps = [
        _flat(_samples(padded, (u, v), strides, dy.shape)).T @ rows
        for u in range(kernel.shape[0])
        for v in range(kernel.shape[1])
    ]
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    borders = [
        _border(*sizes)
        for sizes in zip(
            x.shape[1:3], kernel.shape[:2], dy.shape[1:3], strides, padding, strict=True
        )
    ]
    dx = lax.conv_general_dilated(
        dy, turned, (1, 1), borders, lhs_dilation=strides, dimension_numbers=LAYOUT
    )
    return dx, jnp.stack(taps).reshape(kernel.shape)


def _pointwise_gradients(x, kernel, dy, strides):
    """A 1x1 convolution is a matrix product of the sampled pixels."""
    sampled = _samples(x, (0, 0), strides, dy.shape)
    dw = _flat(sampled).T @ _flat(dy)
    dx = (_flat(dy) @ kernel[0, 0].T).reshape(sampled.shape)
    gaps = [
        (0, size - ((count - 1) * stride + 1), stride - 1)
        for size, count, stride in zip(x.shape[1:3], dy.shape[1:3], strides, strict=True)
    ]
    return lax.pad(dx, jnp.zeros((), dx.dtype), [(0, 0, 0), *gaps, (0, 0, 0)]), dw[None, None]


def _samples(x, first, strides, shape):
    """The pixels of `x` that one kernel tap meets: from `first`, `strides` apart."""
    last = [f + s * (n - 1) + 1 for f, s, n in zip(first, strides, shape[1:3], strict=True)]
    start, limit = (0, *first, 0), (x.shape[0], *last, x.shape[3])
    return lax.slice(x, start, limit, (1, *strides, 1))


def _border(size, kernel, count, stride, padding):
    """Padding of dy along one axis so that the turned convolution gives `size` samples."""
    before = kernel - 1 - padding[0]
    return before, size + kernel - 1 - before - (stride * (count - 1) + 1)


def _flat(x):
    return x.reshape(-1, x.shape[-1])
