"""U-Net decoders (Ronneberger et al., MICCAI 2015): NEGEV's and both papers' upper bounds.

Blocks double the size of the deepest level and join it with the next finer one. In a stride-8
encoder several levels share a size; there the doubled map shrinks back to the level's.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from wsol_jax import batch_norm, convolution, ops
from wsol_jax.backbones import double_conv, vit

_conv = functools.partial(convolution.Conv, kernel_size=(3, 3), padding=1)
_kaiming = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")


class Decoder(nn.Module):
    """Feature levels, finest first -> foreground/background logits (b H W 2), channel 1 foreground.

    Attributes:
      channels: of the blocks, the coarsest first. All but the last join a level; of VGG16's four
        levels three blocks leave the finest out, as released.
      centre: whether two convolutions at the deepest level's width come first, as for VGG16.
      dtype: of the computation; parameters, batch statistics and logits stay float32.
      axis_name: devices that share batch statistics, under pmap.
    """

    channels: Sequence[int] = (256, 128, 64, 32, 16)
    centre: bool = False
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        levels: Sequence[Float[Array, "b _ _ _"]],
        shape: tuple[int, int],
        train: bool = False,
    ) -> Float[Array, "b H W 2"]:
        unit = functools.partial(self._unit, train=train)
        *finer, x = levels[-len(self.channels) :]
        if self.centre:
            x = unit(unit(x, x.shape[-1], "center.0"), x.shape[-1], "center.1")
        for index, channels in enumerate(self.channels):
            x = ops.doubled(x)
            if finer:
                level = finer.pop()
                x = jnp.concatenate([_resized(x, level.shape[1:3]), level], axis=-1)
            x = unit(x, channels, f"blocks.{index}.conv1")
            x = unit(x, channels, f"blocks.{index}.conv2")
        x = ops.wide(x)
        head = _conv(2, kernel_init=nn.initializers.xavier_uniform(), name="head")
        return _resized(head(x), shape)

    def _unit(self, x, channels, name, *, train):
        """Convolution, batch normalisation, ReLU."""
        conv = _conv(
            channels, use_bias=False, dtype=self.dtype, kernel_init=_kaiming, name=f"{name}.0"
        )
        norm = batch_norm.BatchNorm(axis_name=self.axis_name, name=f"{name}.1")
        return nn.relu(norm(conv(x), train))


class DoubleConvDecoder(nn.Module):
    """Feature levels of a `double_conv.Pyramid` -> logits (b H W 2), channel 1 foreground.

    At every level: two convolutions of its width, nearest resizing to the next finer level, of
    twice the size or one less, which is joined, and two convolutions of that one's width. The small
    U-Net of the max-min paper.
    """

    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        levels: Sequence[Float[Array, "b _ _ _"]],
        shape: tuple[int, int],
        train: bool = False,
    ) -> Float[Array, "b H W 2"]:
        options = {"dtype": self.dtype, "axis_name": self.axis_name}
        *finer, x = levels
        for number, level in enumerate(reversed(finer)):
            before = double_conv.DoubleConv(x.shape[-1], **options, name=f"up.{number}.before")
            after = double_conv.DoubleConv(level.shape[-1], **options, name=f"up.{number}.after")
            x = ops.doubled(before(x, train))[:, : level.shape[1], : level.shape[2]]
            x = after(jnp.concatenate([x, level], axis=-1), train)
        x = ops.wide(x)
        return _resized(nn.Dense(2, kernel_init=_kaiming, name="head")(x), shape)


def beside(encoder: nn.Module, channels: Sequence[int], centre: bool) -> nn.Module:
    """A decoder that computes in the encoder's type and over its devices.

    That of a `double_conv.Pyramid` takes its widths from the levels.

    Raises:
      ValueError: the encoder is a transformer, whose tokens are of one level.
    """
    if isinstance(encoder, vit.ViT):
        raise ValueError(
            "a decoder joins the levels of an encoder, of which a ViT has one; expected another, "
            "such as --config.backbone.name=resnet50"
        )
    options = {name: getattr(encoder, name, None) for name in ("dtype", "axis_name")}
    if isinstance(encoder, double_conv.Pyramid):
        return DoubleConvDecoder(**options)
    return Decoder(channels, centre, **options)


def _resized(x, shape):
    """Bilinear with aligned corners, where the size differs."""
    return x if x.shape[1:3] == tuple(shape) else ops.resize(x, shape, align_corners=True)
