"""What stands on the features: pooling heads that classify the image, and the pixel classifier.

A pooling head gives class logits and, by its method `maps`, what its own pooling says of every
pixel: the class scores that it pools, or the attention it weighs pixels with.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wsol_jax import batch_norm, choices, ops

PIXEL_HEADS = {"linear": (), "one_layer": (4,), "multi_layer": (2, 4, 8)}

Features = Float[Array, "b h w c"]
Logits = Float[Array, "b k"]
Maps = Float[Array, "b h w k"]

_xavier = nn.initializers.xavier_uniform()
STARTS = {
    "xavier": _xavier,
    "uniform": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
}


class ClassScores(nn.Module):
    """A linear layer that scores every pixel for every class, and a pooling of the scores.

    With `background_row` the layer has one more output, row 0, which is never used: the published
    parameter counts include it. Subclasses pool scores (b n k) in `pool`, or are called otherwise.
    """

    num_classes: int
    background_row: bool = True

    def setup(self):
        rows = self.num_classes + int(self.background_row)
        self.linear = nn.Dense(rows, kernel_init=_xavier)

    def __call__(self, features: Features, keys: Any = None, train: bool = False) -> Logits:
        scores = self.maps(features)
        return self.pool(scores.reshape(scores.shape[0], -1, self.num_classes))

    def maps(self, features: Features) -> Maps:
        return self._classes(self.linear(ops.wide(features)))

    def _classes(self, rows):
        return rows[..., int(self.background_row) :]


class WGAP(ClassScores):
    """Global average pooling and a linear layer: logits = W mean_ij F_ij + b.

    A 1x1 convolution followed by the average (GAP in the released code) is the same function of the
    same weights; pooling first is cheaper.
    """

    def __call__(self, features: Features, keys: Any = None, train: bool = False) -> Logits:
        return self._classes(self.linear(jnp.mean(ops.wide(features), axis=(1, 2))))


class MaxPool(ClassScores):
    """logits = max_ij M_ij (Oquab et al., CVPR 2015)."""

    def pool(self, scores):
        return jnp.max(scores, axis=1)


class LogSumExp(ClassScores):
    """logits = (1/r) log mean_ij exp(r M_ij) (Pinheiro & Collobert, CVPR 2015).

    r = `sharpness` moves it from the mean (0) to the maximum (infinity). The largest score is taken
    out of the exponential, which overflows in the released code.
    """

    sharpness: float = 10.0

    def setup(self):
        choices.require_number("sharpness", self.sharpness, above=0)
        super().setup()

    def pool(self, scores):
        total = jax.nn.logsumexp(self.sharpness * scores, axis=1)
        return (total - jnp.log(scores.shape[1])) / self.sharpness


class WildCat(ClassScores):
    """WILDCAT (Durand et al., CVPR 2017).

    A class map is the mean of `modalities` score maps; logits = mean of the top kmax n scores
    + alpha * mean of the lowest kmin n. The released code computes the second term and loses it:
    alpha = 0 is that.

    Attributes:
      kmax, kmin: shares of the pixels in (0, 1] and [0, 1]; kmax has one pixel at least.
      dropout: rate of the dropout of sorted scores before they are averaged.
      use_bias: whether the linear layer has biases; ERASE's has none.
      start: its initial weights, one of `STARTS`: those of PixelCAM's code, or of max-min's, which
        are PyTorch's own, U(-1/sqrt(c), 1/sqrt(c)). Biases begin at zero with both, which they do
        not in max-min's code.
    """

    modalities: int = 5
    kmax: float = 0.5
    kmin: float = 0.1
    alpha: float = 0.6
    dropout: float = 0.0
    use_bias: bool = True
    start: str = "xavier"

    def setup(self):
        choices.require("start", self.start, STARTS)
        choices.require_number("kmax", self.kmax, above=0, most=1)
        choices.require_number("kmin", self.kmin, most=1)
        choices.require_number("modalities", self.modalities, least=1)
        rows = (self.num_classes + int(self.background_row)) * self.modalities
        options = {"use_bias": self.use_bias, "kernel_init": STARTS[self.start]}
        self.to_modalities = nn.Dense(rows, **options)

    def __call__(self, features: Features, keys: Any = None, train: bool = False) -> Logits:
        scores = self.maps(features)
        ordered = jnp.sort(scores.reshape(scores.shape[0], -1, self.num_classes), axis=1)
        if train and self.dropout:
            ordered = ops.dropout(ordered, keys, self.dropout)
        count = ordered.shape[1]
        top, lowest = max(round(self.kmax * count), 1), round(self.kmin * count)
        logits = jnp.mean(ordered[:, count - top :], axis=1)
        if self.alpha and lowest:
            logits += self.alpha * jnp.mean(ordered[:, :lowest], axis=1)
        return logits

    def maps(self, features: Features) -> Maps:
        rows = self.to_modalities(ops.wide(features))
        return self._classes(jnp.mean(rows.reshape(*rows.shape[:-1], -1, self.modalities), axis=-1))


class DeepMIL(nn.Module):
    """Attention pooling (Ilse et al., ICML 2018, eqs. 8-9) with one attention map per class.

    a_c = softmax_ij(w_c tanh(V F_ij) [* sigmoid(U F_ij)]), logit_c = u_c sum_ij a_c,ij F_ij + b_c;
    the factor in brackets where `gated`, as in PixelCAM's tables.
    """

    num_classes: int
    gated: bool = True
    width: int = 128

    def setup(self):
        self.value = nn.Dense(self.width, kernel_init=_xavier)
        self.gate = nn.Dense(self.width, kernel_init=_xavier) if self.gated else None
        self.score = nn.Dense(self.num_classes, kernel_init=_xavier)
        self.linear = [nn.Dense(1, kernel_init=_xavier) for _ in range(self.num_classes)]

    def __call__(self, features: Features, keys: Any = None, train: bool = False) -> Logits:
        pooled = jnp.einsum("bhwk,bhwc->bkc", self.maps(features), ops.wide(features))
        logits = [linear(pooled[:, k]) for k, linear in enumerate(self.linear)]
        return jnp.concatenate(logits, axis=-1)

    def maps(self, features: Features) -> Maps:
        x = ops.wide(features)
        hidden = nn.tanh(self.value(x))
        if self.gated:
            hidden *= nn.sigmoid(self.gate(x))
        return jax.nn.softmax(self.score(hidden), axis=(1, 2))


class ConvGAP(nn.Module):
    """A 3x3 convolution to class maps and their average: the head of SAT (Wu et al., ICCV 2023)."""

    num_classes: int

    def __call__(self, features: Features, keys: Any = None, train: bool = False) -> Logits:
        return jnp.mean(self.maps(features), axis=(1, 2))

    @nn.compact
    def maps(self, features: Features) -> Maps:
        uniform = _uniform(9 * features.shape[-1])
        options = {"padding": 1, "kernel_init": uniform, "bias_init": uniform}
        return nn.Conv(self.num_classes, (3, 3), **options, name="conv")(ops.wide(features))


class PixelHead(nn.Module):
    """Foreground/background classifier of single pixels: features -> logits, channel 1 foreground.

    Linear by default (PixelCAM, section 2). Each entry of `divisors` adds a hidden 1x1 convolution
    to c / divisor channels with batch normalisation and ReLU before it (Tables 12 and 13), which is
    computed in `dtype`.
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
            x = self._dense(x, channels // divisor, f"hidden.{layer}", self.dtype)
            x = nn.relu(
                batch_norm.BatchNorm(axis_name=self.axis_name, name=f"norm.{layer}")(x, train)
            )
        if self.batch_norm:
            x = batch_norm.BatchNorm(axis_name=self.axis_name, name="norm")(x, train)
        return self._dense(ops.wide(x), 2, "output", dtype=None)

    def _dense(self, x, channels, name, dtype):
        uniform = _uniform(x.shape[-1])
        options = {"kernel_init": uniform, "bias_init": uniform}
        return nn.Dense(channels, dtype=dtype, **options, name=name)(x)


HEADS = {
    "wgap": WGAP,
    "max": MaxPool,
    "lse": LogSumExp,
    "wildcat": WildCat,
    "deep_mil": DeepMIL,
    "conv_gap": ConvGAP,
}


def build(name: str, num_classes: int, **keywords) -> nn.Module:
    """The pooling head called `name`: features (b h w c) -> logits (b k)."""
    choices.require("head", name, HEADS)
    choices.require_settings("head", name, keywords, HEADS[name])
    return HEADS[name](num_classes, **keywords)


def _uniform(inputs):
    """PyTorch's own initial values, U(-1/sqrt(inputs), 1/sqrt(inputs)), weights and bias alike."""

    def draw(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -(inputs**-0.5), inputs**-0.5)

    return draw
