"""What max-min's released code trains on CAMELYON16, for EEM and SEM alike: not the paper's.

A mask of its own, taught by the image labels alone, which no classifier sees: it is to be empty in
normal images, and a barrier keeps it open in metastatic ones. `methods/maxmin.py` has the paper's.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from wsol_jax import choices, heads, losses, ops
from wsol_jax.method import Method

VERSION = 1  # to be raised when the numbers change


class MaxMinCamelyon16(nn.Module):
    """Class scores and a mask from two heads on the whole image.

    `classifier`, which the paper runs on the masked image, is never run, but counts.

    Attributes:
      encoder: image (b H W 3) -> feature levels, the last of which (b h w c) is used.
      localizer, mask_head, classifier: WILDCAT heads; that of the mask has one class.

    Outputs: logits (b k) and mask_logits (b H W).
    """

    encoder: nn.Module
    localizer: nn.Module
    mask_head: nn.Module
    classifier: nn.Module

    def __call__(self, image, keys=None, train=False):
        encoder_keys, head_keys = ops.split_keys(keys, 2)
        features = self.encoder(image, encoder_keys, train)[-1]
        if self.is_initializing():
            self.classifier(features)
        maps = self.mask_head.maps(features)[..., 0]
        return {
            "logits": self.localizer(features, head_keys, train),
            "mask_logits": ops.resize_maps(maps, image.shape[1:3], align_corners=True),
        }


def make(
    encoder: nn.Module,
    head: nn.Module,
    *,
    omega: float = 5.0,
    t: float = 5.0,
    t_growth: float = 1.01,
    t_max: float = 10.0,
    modalities: int = 5,
) -> Method:
    """10 CE(s, y) + BCE(sigmoid(m), 0) of normal images + ELB(-|M+|) of metastatic ones.

    m is the map of the mask's head, at the size of the image, M+ = sigmoid(omega m), |.| the sum
    over the pixels; s are the class scores of the image. The two terms of the mask are means over
    the images (and pixels) that they are of.

    Args:
      encoder: image (b H W 3) -> feature levels, the last of which (b h w c) is used.
      head: WILDCAT, features -> logits (b k). With 4 modalities and no background row, on a
        ResNet-18 with deep stem, there are 11,335,765 parameters.
      omega: slope of the mask.
      t, t_growth, t_max: t of the barrier grows by a factor an epoch, up to the maximum.
      modalities: of the mask's head.

    Raises:
      ValueError: a number out of its range, a schedule that begins above its end, or another head.
    """
    choices.require_number("omega", omega, above=0)
    choices.require_number("modalities", modalities, least=1)
    barrier_t = losses.barrier_schedule(t, t_growth, t_max)
    if not isinstance(head, heads.WildCat):
        raise ValueError(
            f"the method 'maxmin_camelyon16' got the head {type(head).__name__}; it needs the "
            "modalities of WILDCAT: pass --config.head.name=wildcat"
        )
    mask_head = head.clone(num_classes=1, modalities=modalities, background_row=False)
    model = MaxMinCamelyon16(encoder, head, mask_head, head.clone())

    def loss(outputs, batch):
        label, valid, logits = batch["label"], batch["valid"], outputs["mask_logits"]
        normal = jnp.mean(jax.nn.softplus(logits), axis=(1, 2))  # -log(1 - sigmoid(m))
        size = jnp.sum(nn.sigmoid(omega * logits), axis=(1, 2))
        barrier = losses.log_barrier(-size, barrier_t(batch["epoch"]))
        return {
            "image": (10.0, losses.cross_entropy(outputs["logits"], label, valid)),
            "background": (1.0, losses.mean(normal, valid & (label == 0))),
            "size": (1.0, losses.mean(barrier, valid & (label > 0))),
        }

    def localize(variables, image, label=None):
        del label
        outputs = model.apply(variables, image)
        return outputs["logits"], {"maxmin_camelyon16": nn.sigmoid(omega * outputs["mask_logits"])}

    return Method(model, loss, localize)
