"""What stands on the features: pooling heads that classify the image, and the pixel classifier."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wsol_jax import batch_norm

PIXEL_HEADS = {"linear": (), "one_layer": (4,), "multi_layer": (2, 4, 8)}


class WGAP(nn.Module):
    """Global average pooling and a linear layer: logits = W mean_ij F_ij + b.

    A 1x1 convolution followed by the average (GAP in the released code) is the same function of the
    same weights. With `background_row` the layer has one more output, row 0, which is never used:
    the published parameter counts include it.
    """

    num_classes: int
    background_row: bool = True

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
        rows = self.num_classes + int(self.background_row)
        pooled = jnp.mean(_wide(features), axis=(1, 2))
        logits = nn.Dense(rows, kernel_init=nn.initializers.xavier_uniform(), name="linear")(pooled)
        return logits[:, rows - self.num_classes :]


class PixelHead(nn.Module):
    """Foreground/background classifier of single pixels: features -> logits, channel 1 foreground.

    Linear by default (PixelCAM, section 3). Each entry of `divisors` adds a hidden 1x1 convolution
    to c / divisor channels with batch normalisation and ReLU before it (Tables 12 and 13).
    """

    divisors: tuple[int, ...] = ()
    batch_norm: bool = False
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, features: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w 2"]:
        x, channels = features, features.shape[-1]
        for layer, divisor in enumerate(self.divisors):
            x = self._convolution(x, channels // divisor, f"hidden.{layer}")
            x = nn.relu(
                batch_norm.BatchNorm(axis_name=self.axis_name, name=f"norm.{layer}")(x, train)
            )
        if self.batch_norm:
            x = batch_norm.BatchNorm(axis_name=self.axis_name, name="norm")(x, train)
        return _wide(self._convolution(x, 2, "output"))

    def _convolution(self, x, channels, name):
        """1x1 convolution, drawn from U(-1/sqrt(c), 1/sqrt(c)), weights and bias alike."""
        bound = x.shape[-1] ** -0.5

        def uniform(key, shape, dtype=jnp.float32):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        layer = nn.Dense(
            channels, dtype=self.dtype, kernel_init=uniform, bias_init=uniform, name=name
        )
        return layer(x)


def build(name: str, num_classes: int, **keywords) -> nn.Module:
    """The pooling head called `name`: features (b h w c) -> logits (b k)."""
    heads = {"wgap": WGAP}
    if name not in heads:
        raise ValueError(f"unknown head {name!r}; have {sorted(heads)}")
    return heads[name](num_classes, **keywords)


def _wide(x):
    """At least float32: pooling and logits do not stay in half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
