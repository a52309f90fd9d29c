"""PN: constraints on the size of each class's region, present or not present (max-min's Table 1).

After Kervadec et al., "Constrained-CNN losses for weakly supervised segmentation", Medical Image
Analysis 2019. The max-min paper gives WILDCAT pooling, the weight 1e-5 and the schedule, and no
formula; no code was released. Chosen here:

- the soft region of class c is sigmoid of its class map, at feature resolution, and V_c its sum;
- the penalty is quadratic: (1 - V_c)² where c is the image's class and V_c < 1, V_c² for others;
- it stands beside the cross-entropy of the WILDCAT logits;
- the mask is the region of the image's class at one half.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from wsol_jax import cams, choices, losses, ops
from wsol_jax.method import Method

VERSION = 1  # to be raised when the numbers change


class Pn(nn.Module):
    """Class logits, and the class maps that they are pooled from."""

    encoder: nn.Module
    head: nn.Module

    def __call__(self, image, keys=None, train=False):
        encoder_keys, head_keys = ops.split_keys(keys, 2)
        features = self.encoder(image, encoder_keys, train)[-1]
        logits = self.head(features, head_keys, train)
        return {"logits": logits, "class_maps": self.head.maps(features)}


def make(
    encoder: nn.Module,
    head: nn.Module,
    *,
    penalty_weight: float = 1e-5,
    least: float = 1.0,
    object_class: int | None = None,
) -> Method:
    """Cross-entropy + penalty_weight * sum_c penalty_c.

    Args:
      encoder: image (b H W 3) -> feature levels, the last of which (b h w c) is used.
      head: features -> logits (b k), with the class maps that it pools as `maps`.
      penalty_weight: of the size penalty.
      least: pixels of the feature map that the image's class covers at least.
      object_class: the only class with a region, such as the tumour of CAMELYON16, and the one that
        is localized; the image's own unless given.
    """
    choices.require("object_class", object_class, (None, *range(head.num_classes)))
    choices.require_number("penalty_weight", penalty_weight)
    choices.require_number("least", least)
    model = Pn(encoder, head)

    def loss(outputs, batch):
        image = losses.cross_entropy(outputs["logits"], batch["label"], batch["valid"])
        regions = jax.nn.sigmoid(outputs["class_maps"])
        penalty = size_penalty(regions, batch["label"], least)
        if object_class is not None:
            penalty = penalty[:, object_class : object_class + 1]
        size = losses.mean(jnp.sum(penalty, axis=-1), batch["valid"])
        return {"image": (1.0, image), "size": (penalty_weight, size)}

    def localize(variables, image, label=None):
        outputs = model.apply(variables, image)
        label = cams.localized(outputs["logits"], label, object_class)
        own = cams.pick(outputs["class_maps"], label)
        return outputs["logits"], {"pn": jax.nn.sigmoid(own)}

    return Method(model, loss, localize)


def size_penalty(
    regions: Float[Array, "b h w k"], label: Int[Array, "b"], least: float
) -> Float[Array, "b k"]:
    """(least - V)² of a present class smaller than `least`, V² of an absent one; V = sum of it."""
    size = jnp.sum(regions, axis=(1, 2))
    present = jax.nn.one_hot(label, regions.shape[-1], dtype=bool)
    return jnp.where(present, jnp.square(jax.nn.relu(least - size)), jnp.square(size))
