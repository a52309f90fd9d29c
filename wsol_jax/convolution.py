"""Convolution and pooling of NHWC arrays, in the forms that are fast on CPUs too.

There XLA computes the weight gradient of a 1x1 convolution as a convolution with an h x w kernel,
two to five times slower than the matrix product it is, and the gradient of a maximum through the
indices of all pixels. GPU and TPU keep XLA's operations: the choice falls when a program is
lowered, so one exported step runs everywhere.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    lhs: Float[Array, "b h w c"],
    rhs: Float[Array, "u v _ d"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    **options: Any,
) -> Float[Array, "_ _ _ _"]:
    """y[b,i,j] = sum_uv x[b, i s + u - p, j s + v - p] w[u,v], as `lax.conv_general_dilated`.

    A convolution whose windows do not overlap (1x1, or patches), without padding, dilation and
    groups, has first derivatives in reverse mode only; any other is handed on and keeps them all.
    """
    plain = _is_plain(lhs, rhs, lhs_dilation, rhs_dilation, dimension_numbers)
    strides, kernel = tuple(window_strides), rhs.shape[:2]
    if plain and kernel in ((1, 1), strides) and feature_group_count == 1 and not options:
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(lhs.shape[1:3], kernel, strides, padding)
        if all(tuple(pair) == (0, 0) for pair in padding):
            given = {"strides": strides, "precision": precision}
            forms = (functools.partial(form, **given) for form in (_product, _convolution))
            return _by_platform(*forms, lhs, rhs)
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        precision=precision,
        **options,
    )


Conv = functools.partial(nn.Conv, conv_general_dilated=conv_general_dilated)


def max_pool(
    x: Float[Array, "b h w c"], *, window: int, stride: int, padding: int, round_up: bool = False
) -> Float[Array, "b i j c"]:
    """Maximum over square windows; padding never wins, and the first of equals has the gradient.

    Derivatives are first ones, in reverse mode.

    Args:
      round_up: a last window that reaches over the border counts too (PyTorch's ceil_mode).
    """
    border = tuple(
        (padding, padding + _overhang(n + 2 * padding, window, stride, padding) * round_up)
        for n in x.shape[1:3]
    )
    options = {"window": window, "stride": stride, "border": ((0, 0), *border, (0, 0))}
    return _by_platform(
        functools.partial(_shifted_maxima, **options),
        functools.partial(_window_maxima, **options),
        x,
    )


def _overhang(size, window, stride, padding):
    """How far one more window reaches over the border; 0 if it would begin in the padding."""
    missing = -(size - window) % stride
    begins = size + missing - window
    return missing if begins < size - padding else 0


def _is_plain(lhs, rhs, lhs_dilation, rhs_dilation, dimension_numbers):
    """Whether the layout is NHWC and nothing is dilated."""
    dilations = (*(lhs_dilation or ()), *(rhs_dilation or ()))
    given, ours = (
        lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers)
        for numbers in (dimension_numbers, LAYOUT)
    )
    return given == ours and all(dilation == 1 for dilation in dilations)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_platform(on_cpu, elsewhere, *operands):
    """One function in two forms. The rule keeps the choice out of what is differentiated."""
    return lax.platform_dependent(*operands, cpu=on_cpu, default=elsewhere)


def _by_platform_forward(on_cpu, elsewhere, *operands):
    return _by_platform(on_cpu, elsewhere, *operands), operands


def _by_platform_backward(on_cpu, elsewhere, operands, dy):
    def pull(form):
        return lambda dy, *operands: jax.vjp(form, *operands)[1](dy)

    return lax.platform_dependent(dy, *operands, cpu=pull(on_cpu), default=pull(elsewhere))


_by_platform.defvjp(_by_platform_forward, _by_platform_backward)


def _product(x, kernel, *, strides, precision):
    """y[b,i,j] = sum_uv x[b, i s + u, j s + v] w[u,v]: windows, as rows of one matrix, times w.

    Two axes, since XLA copies a transposed operand of any product with more.
    """
    u, v, channels, features = kernel.shape
    if (u, v) == (1, 1):
        windows = x[:, :: strides[0], :: strides[1]]
        b, h, w, _ = windows.shape
    else:
        b, h, w = x.shape[0], x.shape[1] // u, x.shape[2] // v
        windows = x[:, : h * u, : w * v].reshape(b, h, u, w, v, channels).swapaxes(2, 3)
    rows, columns = windows.reshape(b * h * w, -1), kernel.reshape(-1, features)
    return jnp.matmul(rows, columns, precision=precision).reshape(b, h, w, features)


def _convolution(x, kernel, *, strides, precision):
    """The same, as XLA's convolution."""
    return lax.conv_general_dilated(
        x, kernel, strides, "VALID", dimension_numbers=LAYOUT, precision=precision
    )


def _window_maxima(x, *, window, stride, border):
    sizes, strides = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, sizes, strides, border)


def _shifted_maxima(x, *, window, stride, border):
    """The maximum of the image's shifted copies; a NaN wins, as it does in `lax.max`."""
    padded = jnp.pad(x, border, constant_values=-jnp.inf)
    rows, columns = ((n - window) // stride * stride + 1 for n in padded.shape[1:3])
    first, *others = (
        padded[:, u : u + rows : stride, v : v + columns : stride]
        for u, v in itertools.product(range(window), repeat=2)
    )
    return functools.reduce(_larger, others, first)


def _larger(best, other):
    """The larger one, the first of equals."""
    return jnp.where((other > best) | jnp.isnan(other), other, best)
