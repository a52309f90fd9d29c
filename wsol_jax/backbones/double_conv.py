"""The encoder of the max-min paper's small U-Net: pairs of 3x3 convolutions, trained from scratch.

After Ronneberger et al. (MICCAI 2015), with padding, batch normalisation, and strides in place of
pooling.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from wsol_jax import batch_norm, convolution

_kaiming = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Pyramid(nn.Module):
    """Feature levels: image (b H W 3) -> (at H, H/2, H/4, ...), one for each of `widths`.

    Attributes:
      widths: channels of the levels.
      dtype: of the computation; parameters and batch statistics stay float32.
      axis_name: devices that share batch statistics, under pmap.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b H W 3"],
        keys: Key[Array, "b"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        del keys  # nothing is drawn
        x, levels = image, []
        for level, width in enumerate(self.widths):
            stride = 2 if level else 1
            options = {"dtype": self.dtype, "axis_name": self.axis_name}
            x = DoubleConv(width, stride, **options, name=f"down.{level}")(x, train)
            levels.append(x)
        return tuple(levels)


class DoubleConv(nn.Module):
    """Twice a 3x3 convolution without bias, batch normalisation and ReLU; the first may stride."""

    channels: int
    stride: int = 1
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b _ _ d"]:
        conv = functools.partial(
            convolution.Conv,
            self.channels,
            (3, 3),
            padding=1,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_kaiming,
        )
        for number, stride in ((1, self.stride), (2, 1)):
            x = conv(strides=(stride, stride), name=f"conv{number}")(x)
            norm = batch_norm.BatchNorm(axis_name=self.axis_name, name=f"bn{number}")
            x = nn.relu(norm(x, train))
        return x
