"""SAT (Wu et al., ICCV 2023): a spatial token learns where the object is, and masks the attention.

The transformer's location token (`backbones/vit.py`) looks at every patch; a sigmoid of what it
sees masks the attention of the last three blocks, so that the classifier can only use what the map
shows. The mean of the three masks is the map.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wsol_jax import losses, ops
from wsol_jax.method import Method

VERSION = 1  # to be raised when the numbers change

# The released smoothing of the mask: a Gaussian over 3 x 3 patches, zero outside the map.
CORNER, EDGE, CENTRE = 0.002628462, 0.046011604, 0.8054397
SMOOTHING = ((CORNER, EDGE, CORNER), (EDGE, CENTRE, EDGE), (CORNER, EDGE, CORNER))


class Sat(nn.Module):
    """Class logits from the patch tokens, and the mean of the location maps."""

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
    area: float = 0.35,
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
    """
    if not getattr(encoder, "location", False):
        raise ValueError(
            "SAT needs a location token; pass --config.backbone.location=True with a ViT backbone"
        )
    model = Sat(encoder, head)

    def prepare(batch, keys):
        del keys
        return batch

    def loss(outputs, batch):
        valid, smooth = batch["valid"], smoothed(outputs["map"])
        image = losses.cross_entropy(outputs["logits"], batch["label"], valid)
        covered = losses.mean(jnp.mean(outputs["map"], axis=(1, 2)), valid)
        undecided = losses.mean(jnp.mean(smooth * (1 - smooth), axis=(1, 2)), valid)
        return {
            "image": (1.0, image),
            "area": (area_weight, losses.Distance(covered, area)),
            "binarisation": (binarisation_weight, undecided),
        }

    def localize(variables, image, label=None):
        del label  # one map for all classes
        outputs = model.apply(variables, image)
        return outputs["logits"], {"sat": ops.min_max(outputs["map"])}

    return Method(model, prepare, loss, localize)


def smoothed(maps: Float[Array, "b h w"]) -> Float[Array, "b h w"]:
    """Maps under `SMOOTHING`; they shrink at the border, where zeros are mixed in."""
    kernel = jnp.asarray(SMOOTHING, maps.dtype)[..., None, None]
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    return jax.lax.conv_general_dilated(maps[..., None], kernel, (1, 1), "SAME", **options)[..., 0]
