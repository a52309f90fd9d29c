"""SAT (Wu et al., ICCV 2023): a spatial token learns where the object is, and masks the attention.

The transformer's location token (`backbones/vit.py`) looks at every patch; a sigmoid of what it
sees masks the attention of the last three blocks, so that the classifier can only use what the map
shows. The mean of the three masks is the map.
"""

import flax.linen as nn
import jax.numpy as jnp

from wsol_jax import choices, location, losses, ops
from wsol_jax.method import Method

VERSION = 1  # to be raised when the numbers change


class Sat(nn.Module):
    """Class logits from the patch tokens, and the mean of the location masks."""

    encoder: nn.Module
    head: nn.Module

    def __call__(self, image, keys=None, train=False):
        encoder_keys, head_keys = ops.split_keys(keys, 2)
        masks, features = self.encoder(image, encoder_keys, train)
        return {"logits": self.head(features, head_keys, train), "map": jnp.mean(masks, axis=-1)}


def make(
    encoder: nn.Module,
    head: nn.Module,
    *,
    area: float = location.AREA,
    area_weight: float = 1.0,
    binarisation_weight: float = 1.0,
) -> Method:
    """Cross-entropy + |mean m - area| + mean s (1 - s), s the smoothed map m.

    Args:
      encoder: a `vit.ViT` with a location token.
      head: features -> logits (b k).
      area: share of the image that the object covers, on average over a batch.
      area_weight: of the second term. The released code gives all terms the same weight.
      binarisation_weight: of the third.

    Raises:
      ValueError: a number out of its range, or an encoder without a location token.
    """
    choices.require_number("area", area, most=1)
    choices.require_number("area_weight", area_weight)
    choices.require_number("binarisation_weight", binarisation_weight)
    location.require(encoder)
    model = Sat(encoder, head)

    def loss(outputs, batch):
        image = losses.cross_entropy(outputs["logits"], batch["label"], batch["valid"])
        covered, undecided = location.terms(outputs["map"], batch["valid"], area)
        return {
            "image": (1.0, image),
            "area": (area_weight, covered),
            "binarisation": (binarisation_weight, undecided),
        }

    def localize(variables, image, label=None):
        del label  # one map for all classes
        outputs = model.apply(variables, image)
        return outputs["logits"], {"sat": ops.min_max(outputs["map"])}

    return Method(model, loss, localize)
