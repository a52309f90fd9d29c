"""Losses as (total, weight) pairs, which devices and padded batches add up exactly.

The value is formed once, from the sums: a mean of means would depend on how a batch is cut.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Integer

from wsol_jax import choices, ops

Sum = Callable[[Float[Array, ""]], Float[Array, ""]]


class Ratio(NamedTuple):
    """A weighted mean before its division: pairs are combined by adding them field by field."""

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @property
    def value(self) -> Float[Array, ""]:
        """total / weight; zero if nothing was counted. The weight is a count: 0, 1, 2, ..."""
        return self.share(lambda local: local)

    def share(self, over_devices: Sum) -> Float[Array, ""]:
        """This device's part of the value; `over_devices` adds up what the devices have."""
        return self.total / jnp.maximum(over_devices(self.weight), 1)


class Distance(NamedTuple):
    """|mean - target|: the distance of a mean over the whole batch, not a mean of distances."""

    mean: Ratio
    target: Float[Array, ""] | float

    @property
    def value(self) -> Float[Array, ""]:
        """The distance; zero if nothing was counted."""
        return self.share(lambda local: local)

    def share(self, over_devices: Sum) -> Float[Array, ""]:
        """This device's part of the value, with the sign that all devices agree on."""
        difference = self.mean._replace(total=self.mean.total - self.target * self.mean.weight)
        part = difference.share(over_devices)
        return jnp.sign(over_devices(jax.lax.stop_gradient(part))) * part


def mean(values: Float[Array, "b"], valid: Bool[Array, "b"]) -> Ratio:
    """Mean over the valid rows."""
    return Ratio(jnp.sum(jnp.where(valid, values, 0)), jnp.sum(valid.astype(values.dtype)))


def cross_entropy(
    logits: Float[Array, "b k"], label: Integer[Array, "b"], valid: Bool[Array, "b"]
) -> Ratio:
    """Cross-entropy of the image labels, -log softmax(logits)_label, over the valid rows."""
    return partial_cross_entropy(logits, label, valid)


def partial_cross_entropy(
    pixel_logits: Float[Array, "b *n k"],
    target: Integer[Array, "b *n"],
    known: Bool[Array, "b *n"],
) -> Ratio:
    """Cross-entropy over the known pixels of the whole batch (PixelCAM, eq. 2-3).

    The paper writes a sum over the pixels; the released code takes the mean over all known pixels
    of the batch, and so does this. Unknown pixels have zero gradient and may hold any target.
    Computed in float32 even for bfloat16 logits.

    Args:
      target: class of each pixel, 0 background and 1 foreground.
      known: which pixels have a target.
    """
    # Selected before the logarithm, so that nothing unknown, even NaN, reaches sum or gradient.
    logits = jnp.where(known[..., None], ops.wide(pixel_logits), 0)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, target, 0))
    weight = known.astype(logits.dtype)
    return Ratio(jnp.sum(weight * loss), jnp.sum(weight))


def log_barrier(values: Float[Array, "*n"], t: Float[Array, ""] | float) -> Float[Array, "*n"]:
    """The extended log-barrier of the constraint value <= 0 (Kervadec et al., 2019).

    -(1/t) log(-v) where v <= -1/t², else the straight line t v - (1/t) log(1/t²) + 1/t that
    continues it. The larger t, the steeper.
    """
    inside = values <= -1 / t**2
    barrier = -jnp.log(-jnp.where(inside, values, -1)) / t
    line = t * values - jnp.log(1 / jnp.square(t)) / t + 1 / t
    return jnp.where(inside, barrier, line)


def barrier_schedule(
    t: float, growth: float, t_max: float
) -> Callable[[Integer[Array, ""] | int], Float[Array, ""]]:
    """Epoch -> the t of `log_barrier`, min(t growth^epoch, t_max): the barrier steepens.

    Raises:
      ValueError: a number out of its range, or a t that begins above its maximum.
    """
    choices.require_number("t", t, above=0)
    choices.require_number("t_growth", growth, least=1)
    choices.require_growth("t", t, t_max)
    return lambda epoch: jnp.minimum(t * growth ** jnp.asarray(epoch), t_max)


def eem(logits: Float[Array, "b k"]) -> Float[Array, "b"]:
    """Negative entropy of each image in bits, sum_c p_c log2 p_c with p = softmax(logits).

    Explicit entropy maximisation (Belharbi et al., TMI 2022): least, -log2 k, where p is uniform.
    """
    log_p = _log_probabilities(logits)
    return jnp.sum(jnp.exp(log_p) * log_p, axis=-1) / math.log(2)


def sem(logits: Float[Array, "b k"]) -> Float[Array, "b"]:
    """Surrogate of `eem`, mean_c -log2 p_c: KL(uniform || p) in bits, plus log2 k.

    Convex in the logits, and its gradient does not vanish where one class is certain.
    """
    return -jnp.mean(_log_probabilities(logits), axis=-1) / math.log(2)


def _log_probabilities(logits):
    """In single precision or better; the logarithm of a softmax would reach -inf."""
    wide = ops.wide(logits)
    return jax.nn.log_softmax(wide)
