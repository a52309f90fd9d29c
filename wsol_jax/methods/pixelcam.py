"""PixelCAM (Guichemerre et al., MIDL 2025): classify the image and its pixels alike.

The pixel classifier learns, beside the image classifier, from a few pixels per image that a
pretrained classifier's CAM calls foreground or background, drawn anew at every step.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from wsol_jax import choices, heads, location, losses, ops, seeds
from wsol_jax.method import Method

VERSION = 1  # to be raised when the numbers change


class PixelCam(nn.Module):
    """An image head and a pixel head on the same features; dropout reaches the image head only."""

    encoder: nn.Module
    head: nn.Module
    pixel_head: nn.Module
    dropout: float = 0.0

    def __call__(self, image, keys=None, train=False):
        encoder_keys, dropout_keys, head_keys = ops.split_keys(keys, 3)
        *earlier, features = self.encoder(image, encoder_keys, train)
        dropped = features
        if train and self.dropout:
            dropped = ops.drop_channels(features, dropout_keys, self.dropout)
        outputs = {
            "logits": self.head(dropped, head_keys, train),
            "pixel_logits": self.pixel_head(features, train),
        }
        if getattr(self.encoder, "location", False):
            outputs["map"] = jnp.mean(earlier[0], axis=-1)
        return outputs


def make(
    encoder: nn.Module,
    head: nn.Module,
    *,
    pixel_weight: float = 1.0,
    pixel_head: str = "linear",
    pixel_batch_norm: bool = False,
    dropout: float = 0.0,
    sampler: str = "lowest",
    foreground: int = 5,
    background: int = 5,
    fraction: float = 0.2,
    seed_grid: int | None = None,
    negatives: str = "foreground",
    sat_terms: bool = False,
) -> Method:
    """Image cross-entropy + pixel_weight * pixel cross-entropy (eq. 3).

    Args:
      encoder: image (b H W 3) -> feature levels, the last of which (b h w c) is used.
      head: features -> logits (b k).
      pixel_weight: lambda of eq. 3.
      pixel_head: depth of the pixel classifier, a key of `heads.PIXEL_HEADS`.
      pixel_batch_norm: normalise the features before a linear pixel head.
      dropout: rate of spatial dropout before the image head.
      sampler: how pixels are drawn from the CAM, see `seeds.sample`; `foreground` and `background`
        are their numbers per image, `fraction` the share of lowest activations that is background.
      seed_grid: side of the square grid the pixels lie on, in place of the image's own: the side of
        the features (28) gives the authors' low-resolution setting on CAMELYON16.
      negatives: what images of class 0 teach the pixel head: "foreground" and background alike
        (GlaS: benign glands are glands), only "background" (CAMELYON16, as trained by the authors),
        or nothing ("drop").
      sat_terms: keep the area and binarisation terms of SAT on its transformer, which the released
        code drops in this phase.

    Raises:
      ValueError: an unknown name or a number out of its range, or `sat_terms` without a location
        token.
    """
    seeding = {"sampler": sampler, "foreground": foreground, "background": background}
    seeding["fraction"] = fraction
    seeds.check(**seeding)
    choices.require_number("pixel_weight", pixel_weight)
    choices.require_number("dropout", dropout, below=1)
    choices.require("negatives", negatives, seeds.NEGATIVES)
    choices.require("pixel_head", pixel_head, heads.PIXEL_HEADS)
    if sat_terms:
        location.require(encoder)
    pixels = heads.PixelHead(
        heads.PIXEL_HEADS[pixel_head],
        pixel_batch_norm,
        getattr(encoder, "dtype", None),
        getattr(encoder, "axis_name", None),
    )
    model = PixelCam(encoder, head, pixels, dropout)

    def prepare(batch, keys):
        cam, negative = batch["cam"], batch["label"] == 0
        if seed_grid:
            cam = ops.resize_maps(cam, (seed_grid, seed_grid))
        empty = negative & (negatives == "background")
        drawn = seeds.sample(keys, cam, background_only=empty, **seeding)
        kept = batch["valid"] & ~(negative & (negatives == "drop"))
        return {**batch, "seeds": drawn._replace(known=drawn.known & kept[:, None])}

    def loss(outputs, batch):
        drawn = batch["seeds"]
        grid = (seed_grid, seed_grid) if seed_grid else batch["image"].shape[1:3]
        # Interpolating the logits, then reading them at the seeds: what the released code does with
        # the whole map. For a linear head it equals the paper's interpolated features.
        logits = ops.gather_bilinear(outputs["pixel_logits"], drawn.points, grid)
        image = losses.cross_entropy(outputs["logits"], batch["label"], batch["valid"])
        pixel = losses.partial_cross_entropy(logits, drawn.target, drawn.known)
        terms = {"image": (1.0, image), "pixel": (pixel_weight, pixel)}
        if sat_terms:
            covered, undecided = location.terms(outputs["map"], batch["valid"])
            terms |= {"area": (1.0, covered), "binarisation": (1.0, undecided)}
        return terms

    def localize(variables, image, label=None):
        del label  # the pixel classifier does not depend on the class
        outputs = model.apply(variables, image)
        return outputs["logits"], {"pixelcam": jax.nn.softmax(outputs["pixel_logits"])[..., 1]}

    return Method(model, loss, localize, prepare)
