"""Convolution and pooling of NHWC arrays, with 1x1 convolutions as matrix products on CPUs.

There XLA computes the weight gradient of a 1x1 convolution as a convolution with an h x w kernel,
two to five times slower than the product it is. GPU and TPU keep XLA's convolution: the choice
falls when a program is lowered, so one exported step runs everywhere. Pass it on as
`flax.linen.Conv(conv_general_dilated=...)`.
"""

import functools
from collections.abc import Sequence
from typing import Any

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

    A 1x1 convolution without padding, dilation and groups has first derivatives in reverse mode
    only; any other is handed on and keeps all of them.
    """
    plain = _is_plain(lhs, rhs, lhs_dilation, rhs_dilation, dimension_numbers)
    if plain and rhs.shape[:2] == (1, 1) and feature_group_count == 1 and not options:
        strides = tuple(window_strides)
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(lhs.shape[1:3], (1, 1), strides, padding)
        if all(tuple(pair) == (0, 0) for pair in padding):
            return _pointwise(lhs, rhs, strides, precision)
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


def max_pool(
    x: Float[Array, "b h w c"], *, window: int, stride: int, padding: int
) -> Float[Array, "b i j c"]:
    """Maximum over square windows; padding never wins, and the first of equals has the gradient."""
    sizes, strides = (1, window, window, 1), (1, stride, stride, 1)
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, sizes, strides, border)


def _is_plain(lhs, rhs, lhs_dilation, rhs_dilation, dimension_numbers):
    """Whether the layout is NHWC and nothing is dilated."""
    dilations = (*(lhs_dilation or ()), *(rhs_dilation or ()))
    given, ours = (
        lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers)
        for numbers in (dimension_numbers, LAYOUT)
    )
    return given == ours and all(dilation == 1 for dilation in dilations)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _pointwise(x, kernel, strides, precision):
    """y[b,i,j] = x[b, i s, j s] w.

    The rule below only keeps the choice of platform out of what is differentiated: `dx = dy w^T`
    at the sampled pixels and `dw = sum_bij x[b, i s, j s]^T dy[b,i,j]` are those of `_product`.
    """
    product, convolution = _forms(strides, precision)
    return lax.platform_dependent(x, kernel, cpu=product, default=convolution)


def _pointwise_forward(x, kernel, strides, precision):
    return _pointwise(x, kernel, strides, precision), (x, kernel)


def _pointwise_backward(strides, precision, saved, dy):
    product, convolution = (
        lambda x, kernel, dy, form=form: jax.vjp(form, x, kernel)[1](dy)
        for form in _forms(strides, precision)
    )
    return lax.platform_dependent(*saved, dy, cpu=product, default=convolution)


_pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def _forms(strides, precision):
    """The two ways to compute one 1x1 convolution."""
    return (
        functools.partial(_product, strides=strides, precision=precision),
        functools.partial(
            lax.conv_general_dilated,
            window_strides=strides,
            padding="VALID",
            dimension_numbers=LAYOUT,
            precision=precision,
        ),
    )


def _product(x, kernel, *, strides, precision):
    """The sampled pixels, as rows of one matrix, times the kernel.

    Two axes, since XLA copies a transposed operand of any product with more.
    """
    sampled = x[:, :: strides[0], :: strides[1]]
    rows = sampled.reshape(-1, x.shape[-1])
    return jnp.matmul(rows, kernel[0, 0], precision=precision).reshape(*sampled.shape[:3], -1)
