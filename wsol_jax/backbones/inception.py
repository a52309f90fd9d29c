"""InceptionV3 (Szegedy et al., CVPR 2016) in the form of weakly supervised localization.

It ends with Mixed_6e, Mixed_6a keeps its resolution, every 3x3 convolution and every max pooling is
padded, and two 3x3 convolutions to 1024 channels follow: a 224² image has 29² features. Modules
carry torchvision's names, so its checkpoints load by name.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from wsol_jax import batch_norm, convolution, ops

EXTRA_TENSORS = ("Mixed_7", "AuxLogits.", "fc.")  # of a checkpoint, and in no encoder
NEW_TENSORS = tuple(f"SPG_A3_{n}b.1.{leaf}" for n in (1, 2) for leaf in ("weight", "bias"))
EPSILON = 1e-3  # of the batch normalisation: TensorFlow's, where the weights come from
LEVELS = ("Mixed_5c", "Mixed_6e")  # the released decoders skip from the middle of the 5th blocks
DROPOUT = 0.5  # before each of the two new convolutions, as released

_kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class InceptionV3(nn.Module):
    """Feature levels: image (b H W 3) -> (64 at H/2, 80 at H/4, 288, 768 and 1024 at H/8).

    25,482,976 parameters.

    Attributes:
      width: channels of the first block; every other width follows.
      dtype: of the computation; parameters and batch statistics stay float32.
      axis_name: devices that share batch statistics, under pmap.
    """

    width: int = 64
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b H W 3"],
        keys: Key[Array, "b"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        unit = functools.partial(Unit, dtype=self.dtype, axis_name=self.axis_name)
        half = functools.partial(convolution.max_pool, window=3, stride=2, padding=1, round_up=True)
        wide = functools.partial(_scaled, width=self.width)
        x = unit(wide(32), 3, stride=2, name="Conv2d_1a_3x3")(image, train)
        x = unit(wide(32), 3, name="Conv2d_2a_3x3")(x, train)
        x = unit(wide(64), 3, name="Conv2d_2b_3x3")(x, train)
        levels = [x]
        x = unit(wide(80), 1, name="Conv2d_3b_1x1")(half(x), train)
        levels.append(x)
        x = half(unit(wide(192), 3, name="Conv2d_4a_3x3")(x, train))
        for name, (branches, pool) in BLOCKS.items():
            x = Mixed(wide(branches), pool, unit, name=name)(x, train)
            if name in LEVELS:
                levels.append(x)
        for number, layer_keys in enumerate(ops.split_keys(keys, 2), 1):
            if train:
                x = ops.dropout(x, layer_keys, DROPOUT)
            conv = convolution.Conv(
                wide(1024),
                (3, 3),
                padding=1,
                dtype=self.dtype,
                kernel_init=_kaiming,
                name=f"SPG_A3_{number}b.1",
            )
            x = nn.relu(conv(x))
        return (*levels, x)


class Unit(nn.Module):
    """Convolution, batch normalisation, ReLU; padded so that only the stride changes the size."""

    channels: int
    kernel: int | tuple[int, int]
    stride: int = 1
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b _ _ d"]:
        sizes = self.kernel if isinstance(self.kernel, tuple) else (self.kernel, self.kernel)
        x = convolution.Conv(
            self.channels,
            sizes,
            (self.stride, self.stride),
            padding=[(size // 2, size // 2) for size in sizes],
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_kaiming,
            name="conv",
        )(x)
        norm = batch_norm.BatchNorm(epsilon=EPSILON, axis_name=self.axis_name, name="bn")
        return nn.relu(norm(x, train))


class Mixed(nn.Module):
    """Branches of convolutions side by side, the last one after a 3x3 pooling.

    Attributes:
      branches: for each branch, (name, channels, kernel) of its convolutions.
      pool: what the last branch begins with.
    """

    branches: tuple[tuple[tuple, ...], ...]
    pool: Callable[[Array], Array]
    unit: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        starts = [x] * (len(self.branches) - 1) + [self.pool(x)]
        return jnp.concatenate(
            [self._branch(y, units, train) for y, units in zip(starts, self.branches, strict=True)],
            axis=-1,
        )

    def _branch(self, x, units, train):
        for name, channels, kernel in units:
            x = self.unit(channels, kernel, name=name)(x, train)
        return x


def _mean_pool(x):
    """3x3 average at the same size, the padding counted."""
    return nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)))


def _max_pool(x):
    """3x3 maximum at the same size: the form without stride of Mixed_6a's pooling."""
    return convolution.max_pool(x, window=3, stride=1, padding=1)


_DOUBLE_3X3 = (("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3))


def _block_5(pooled):
    return (
        (("branch1x1", 64, 1),),
        (("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        _DOUBLE_3X3,
        (("branch_pool", pooled, 1),),
    ), _mean_pool


def _block_6(narrow):
    row, column = (1, 7), (7, 1)
    double = ((narrow, 1), (narrow, column), (narrow, row), (narrow, column), (192, row))
    return (
        (("branch1x1", 192, 1),),
        (("branch7x7_1", narrow, 1), ("branch7x7_2", narrow, row), ("branch7x7_3", 192, column)),
        tuple((f"branch7x7dbl_{i}", *shape) for i, shape in enumerate(double, 1)),
        (("branch_pool", 192, 1),),
    ), _mean_pool


BLOCKS = {
    "Mixed_5b": _block_5(32),
    "Mixed_5c": _block_5(64),
    "Mixed_5d": _block_5(64),
    "Mixed_6a": (((("branch3x3", 384, 3),), _DOUBLE_3X3, ()), _max_pool),
    "Mixed_6b": _block_6(128),
    "Mixed_6c": _block_6(160),
    "Mixed_6d": _block_6(160),
    "Mixed_6e": _block_6(192),
}


def _scaled(channels, width):
    """Channels, or all those of branches, times width / 64."""
    if isinstance(channels, int):
        return channels * width // 64
    return tuple(tuple((n, c * width // 64, k) for n, c, k in branch) for branch in channels)
