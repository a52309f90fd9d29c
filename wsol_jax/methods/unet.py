"""U-Net trained with full masks: the upper bound of every weakly supervised method."""

import flax.linen as nn
import jax

from wsol_jax import decoder as decoders
from wsol_jax import losses, pixel_labels
from wsol_jax.method import Method

VERSION = 1  # to be raised when the numbers change


class UNet(nn.Module):
    """Pixel logits at the size of the image."""

    encoder: nn.Module
    decoder: nn.Module

    def __call__(self, image, keys=None, train=False):
        levels = self.encoder(image, keys, train)
        return {"pixel_logits": self.decoder(levels, image.shape[1:3], train)}


def make(
    encoder: nn.Module,
    head: nn.Module | None = None,
    *,
    channels: tuple[int, ...] = (256, 128, 64, 32, 16),
    centre: bool = False,
) -> Method:
    """Cross-entropy of every annotated pixel against its mask; there are no image logits.

    Args:
      encoder: image (b H W 3) -> feature levels, all of which are used.
      head: not used.
      channels, centre: of the `decoder.Decoder`; a `double_conv.Pyramid` has a decoder of its own.
    """
    del head
    model = UNet(encoder, decoders.beside(encoder, channels, centre))

    def loss(outputs, batch):
        mask = batch["mask"]
        known = (mask != pixel_labels.UNANNOTATED) & batch["valid"][:, None, None]
        pixel = losses.partial_cross_entropy(outputs["pixel_logits"], mask, known)
        return {"pixel": (1.0, pixel)}

    def localize(variables, image, label=None):
        del label
        outputs = model.apply(variables, image)
        return None, {"unet": jax.nn.softmax(outputs["pixel_logits"])[..., 1]}

    return Method(model, loss, localize, full_masks=True)
