"""Convolution equals XLA's own, values and gradients, on every platform and any number of devices."""

import os
import subprocess
import sys
import textwrap

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from wsol_jax import convolution

NHWC = ("NHWC", "HWIO", "NHWC")
CASES = {  # height, width, channels in and out, kernel, strides, padding
    "pointwise": (7, 6, 5, 3, (1, 1), (1, 1), ((0, 0), (0, 0))),
    "pointwise, stride 2, odd": (7, 9, 3, 5, (1, 1), (2, 2), ((0, 0), (0, 0))),
    "pointwise, stride 2, even": (8, 6, 3, 5, (1, 1), (2, 2), "SAME"),
    "pointwise, strides 3 and 2": (8, 7, 4, 4, (1, 1), (3, 2), "VALID"),
    "pointwise, padded": (5, 5, 3, 2, (1, 1), (1, 1), ((1, 0), (0, 2))),
    "3x3": (7, 6, 3, 4, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "3x3, stride 2": (9, 8, 3, 4, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "even kernel, asymmetric": (8, 7, 2, 3, (2, 4), (1, 2), ((0, 1), (2, 1))),
    "stem": (17, 16, 3, 4, (7, 7), (2, 2), ((3, 3), (3, 3))),
}


def arrays(name, dtype=np.float32):
    """x, w, strides and padding of a case."""
    height, width, channels, features, kernel, strides, padding = CASES[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, height, width, channels)).astype(dtype)
    w = rng.standard_normal((*kernel, channels, features)).astype(dtype)
    return jnp.asarray(x), jnp.asarray(w), strides, padding


def value_and_gradients(convolve, x, w, strides, padding):
    """y and the products of a random dy with dy/dx and dy/dw."""
    y, pull = jax.vjp(lambda x, w: convolve(x, w, strides, padding, dimension_numbers=NHWC), x, w)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
    return y, *pull(jnp.asarray(dy))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_equals_xla(name, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        case = arrays(name, dtype)
        expected = value_and_gradients(lax.conv_general_dilated, *case)
        for convolve in (convolution.conv_general_dilated, jax.jit(_fixed(case))):
            for ours, theirs in zip(
                value_and_gradients(convolve, *case), expected, strict=True
            ):
                assert ours.dtype == theirs.dtype == dtype
                scale = np.abs(theirs).max()
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)


def _fixed(case):
    """Our convolution of two arrays, the rest of its arguments given."""
    strides, padding = case[2:]
    return lambda x, w, *_, **__: convolution.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=NHWC
    )
