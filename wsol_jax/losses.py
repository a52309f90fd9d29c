"""Losses as (total, weight) pairs, which devices and padded batches add up exactly.

The value is formed once, from the sums: a mean of means would depend on how a batch is cut.
"""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Integer


class Ratio(NamedTuple):
    """A weighted mean before its division: pairs are combined by adding them field by field."""

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @property
    def value(self) -> Float[Array, ""]:
        """total / weight; zero if nothing was counted. The weight is a count: 0, 1, 2, ..."""
        return self.total / jnp.maximum(self.weight, 1)


def cross_entropy(
    logits: Float[Array, "b k"], label: Integer[Array, "b"], valid: Bool[Array, "b"]
) -> Ratio:
    """Cross-entropy of the image labels, -log softmax(logits)_label, over the valid rows."""
    return partial_cross_entropy(logits, label, valid)


def partial_cross_entropy(
    pixel_logits: Float[Array, "b *n k"],
    target: Integer[Array, "b *n"],
    known: Bool[Array, "b *n"] | Float[Array, "b *n"],
) -> Ratio:
    """Cross-entropy over the known pixels of the whole batch (PixelCAM, eq. 2-3).

    The paper writes a sum over the pixels; the released code takes the mean over all known pixels
    of the batch, and so does this. Unknown pixels have zero gradient and may hold any target.
    Computed in float32 even for bfloat16 logits.

    Args:
      target: class of each pixel, 0 background and 1 foreground.
      known: which pixels have a target, or how much each one counts.
    """
    logits = pixel_logits.astype(jnp.promote_types(pixel_logits.dtype, jnp.float32))
    weight = known.astype(logits.dtype)
    # Selected before the logarithm, so that nothing unknown, even NaN, reaches sum or gradient.
    logits = jnp.where(weight[..., None] > 0, logits, 0)
    target = jnp.where(weight > 0, target, 0)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    return Ratio(jnp.sum(weight * loss), jnp.sum(weight))
