"""NEGEV (Belharbi et al., MIDL 2022): a decoder beside a frozen classifier learns from its CAMs.

Pixels that the classifier's CAM calls foreground or background, drawn anew at every step, teach a
U-Net decoder on the classifier's features; images without an object teach it background everywhere.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from wsol_jax import choices, losses, pixel_labels, seeds
from wsol_jax import decoder as decoders
from wsol_jax.method import Method

VERSION = 1  # to be raised when the numbers change


class Negev(nn.Module):
    """The classifier in evaluation mode, batch statistics included, and the decoder."""

    encoder: nn.Module
    head: nn.Module
    decoder: nn.Module

    def __call__(self, image, keys=None, train=False):
        levels = jax.lax.stop_gradient(self.encoder(image))
        return {
            "logits": jax.lax.stop_gradient(self.head(levels[-1])),
            "pixel_logits": self.decoder(levels, image.shape[1:3], train),
        }


def make(
    encoder: nn.Module,
    head: nn.Module,
    *,
    channels: tuple[int, ...] = (256, 128, 64, 32, 16),
    centre: bool = False,
    sampler: str = "probability",
    foreground: int = 10,
    background: int = 10,
    fraction: float = 0.2,
    dilation: int = 1,
    negatives: str = "foreground",
    size_weight: float = 0.0,
    t: float = 1.0,
    t_growth: float = 1.01,
    t_max: float = 10.0,
) -> Method:
    """Cross-entropy of the seeds + of negative images + size_weight * log-barriers on the sizes.

    The released code has two more terms, which no published command uses and which are not here:
    the CRF losses of an image and of its colours over all images.

    Args:
      encoder: image (b H W 3) -> feature levels, all of which are used.
      head: features -> logits (b k); neither learns.
      channels, centre: of the `decoder.Decoder`.
      sampler: how pixels are drawn, see `seeds.sample`; `foreground`, `background` and `fraction`
        likewise. The released code draws 10 and 10 whatever its options (1, 1, dilated by 3) say.
      dilation: side of the square that a seed becomes.
      negatives: what images of class 0 teach: seeds of both kinds ("foreground", GlaS), background
        at every pixel ("background", CAMELYON16), or nothing ("drop").
      size_weight: of the mean of log-barriers that keep both regions from vanishing (off in the
        published commands).
      t, t_growth, t_max: t of the barriers grows by a factor an epoch, up to the maximum.

    Raises:
      ValueError: an unknown name, a number out of its range, a schedule that begins above its end,
        or an encoder that a decoder does not go with.
    """
    seeding = {"sampler": sampler, "foreground": foreground, "background": background}
    seeding["fraction"] = fraction
    seeds.check(**seeding)
    seeds.require_centre(dilation)
    choices.require_number("size_weight", size_weight)
    barrier_t = losses.barrier_schedule(t, t_growth, t_max)
    choices.require("negatives", negatives, seeds.NEGATIVES)
    model = Negev(encoder, head, decoders.beside(encoder, channels, centre))

    def prepare(batch, keys):
        drawn = seeds.sample(keys, batch["cam"], **seeding)
        kept = batch["valid"] & ((batch["label"] > 0) | (negatives == "foreground"))
        drawn = drawn._replace(known=drawn.known & kept[:, None])
        target = seeds.dense(drawn, batch["cam"].shape[1:], dilation=dilation)
        return {**batch, "target": target}

    def loss(outputs, batch):
        logits, target = outputs["pixel_logits"], batch["target"]
        pixel = losses.partial_cross_entropy(logits, target, target != pixel_labels.UNANNOTATED)
        terms = {"pixel": (1.0, pixel)}
        if negatives == "background":
            empty = batch["valid"] & (batch["label"] == 0)
            known = jnp.broadcast_to(empty[:, None, None], target.shape)
            background = losses.partial_cross_entropy(logits, jnp.zeros_like(target), known)
            terms["background"] = (1.0, background)
        if size_weight:
            sizes = jnp.sum(jax.nn.softmax(logits), axis=(1, 2))
            barrier = losses.log_barrier(-sizes, barrier_t(batch["epoch"]))
            terms["size"] = (size_weight, losses.mean(jnp.mean(barrier, 1), batch["valid"]))
        return terms

    def localize(variables, image, label=None):
        del label
        outputs = model.apply(variables, image)
        return outputs["logits"], {"negev": jax.nn.softmax(outputs["pixel_logits"])[..., 1]}

    return Method(model, loss, localize, prepare, frozen=("encoder", "head"))
