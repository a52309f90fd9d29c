"""Max-min uncertainty (Belharbi et al., IEEE TMI 2022): a soft mask cuts the image in two.

Of what the mask M+ keeps, a classifier must be certain (min); of the rest, M- = 1 - M+, it must be
as uncertain as can be (max). Log-barriers keep both regions from vanishing. The mask, which these
terms alone teach, is the map.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wsol_jax import choices, losses, ops
from wsol_jax.method import Method

VERSION = 1  # to be raised when the numbers change

BACKGROUND = {"eem": losses.eem, "sem": losses.sem}
NORMALIZE = ("image", "batch")


class MaxMin(nn.Module):
    """Localizer, mask, and the classifier of both sides of the mask, on one encoder (Alg. 1).

    maps (b h w k) and s are the localizer's; M = sum_c softmax(s)_c maps_c, resized to the image;
    M+ = `mask(M)`; s+ and s- are the classifier's scores of X M+ and X M-, shrunk by `scale`. In
    training the batch statistics move three times: with the image, with X M+, with X M-. The
    variable "sigma" among them is that of the last step, so that a checkpoint is evaluated with its
    own; the released code evaluates all with the last epoch's, which differs before epoch 50 only.

    Attributes:
      encoder: image (b H W 3) -> feature levels, the last of which (b h w c) is used.
      localizer, classifier: WILDCAT heads, features -> logits (b k).
      omega, normalize: of the mask, see `mask`.
      first_sigma: sigma before any step.
      scale: of the sides of the masked images.
      axis_name: devices that the batch lies on, under pmap.

    Outputs: maps (b h w k), image_logits s, logits s+ and background_logits s- (b k), and mask M+
    (b H W) in [0, 1], above 1/2 where M is above sigma.
    """

    encoder: nn.Module
    localizer: nn.Module
    classifier: nn.Module
    omega: float = 5.0
    first_sigma: float = 0.15
    scale: float = 0.8
    normalize: str = "image"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image, sigma=None, keys=None, train=False):
        stored = self.variable("batch_stats", "sigma", lambda: jnp.float32(self.first_sigma))
        if sigma is None:
            sigma = stored.value
        elif train:
            stored.value = jnp.asarray(sigma, stored.value.dtype)
        whole_keys, foreground_keys, background_keys = ops.split_keys(keys, 3)
        encoder_keys, head_keys = ops.split_keys(whole_keys, 2)
        features = self.encoder(image, encoder_keys, train)[-1]
        maps, scores = self.localizer.maps(features), self.localizer(features, head_keys, train)
        weighted = jnp.einsum("bhwk,bk->bhw", maps, jax.nn.softmax(scores))
        foreground = mask(
            ops.resize_maps(weighted, image.shape[1:3], align_corners=True),
            omega=self.omega,
            sigma=sigma,
            normalize=self.normalize,
            axis_name=self.axis_name if train else None,
        )
        return {
            "maps": maps,
            "image_logits": scores,
            "mask": foreground,
            "logits": self.classify(image, foreground, foreground_keys, train),
            "background_logits": self.classify(image, 1 - foreground, background_keys, train),
        }

    def classify(self, image, kept, keys=None, train=False):
        """Class scores of the part of the images that is kept; the rest is the colour of zero."""
        encoder_keys, head_keys = ops.split_keys(keys, 2)
        part = image * kept[..., None]
        if self.scale != 1:
            height, width = (math.floor(side * self.scale) for side in image.shape[1:3])
            part = ops.resize(part, (height, width), align_corners=True)
        return self.classifier(self.encoder(part, encoder_keys, train)[-1], head_keys, train)


def make(
    encoder: nn.Module,
    head: nn.Module,
    *,
    background: str | None = "sem",
    background_weight: float = 1e-7,
    size: bool = True,
    omega: float = 5.0,
    sigma: float = 0.15,
    sigma_step: float = 0.001,
    sigma_max: float = 0.2,
    t: float = 5.0,
    t_growth: float = 1.01,
    t_max: float = 10.0,
    scale: float = 0.8,
    normalize: str = "image",
) -> Method:
    """CE(s, y) + CE(s+, y) + background_weight R(s-) + mean [ELB(-|M+|) + ELB(-|M-|)].

    Eq. 7, whose -(1/t) (log |M+| + log |M-|) the barriers are wherever a region has a pixel, and
    the first term, which is in the text and Alg. 1 only. |.| is the sum over the pixels of the
    image. All terms are means over images; those of CAMELYON16's normal class have the same ones.

    Args:
      encoder: image (b H W 3) -> feature levels, the last of which (b h w c) is used.
      head: of class scores, features -> logits (b k), twice: for the localizer and the classifier.
        WILDCAT with 5 modalities, no background row, on a ResNet-18 with deep stem has the paper's
        11,335,252 parameters; alpha = 0 is the released form.
      background: R, `losses.eem`, `losses.sem` (by name), or None to leave the term out.
      background_weight: lambda.
      size: whether to have the barriers.
      omega: slope of the mask, sigmoid(omega (M - sigma)).
      sigma, sigma_step, sigma_max: sigma grows by a step an epoch, up to the maximum, as released;
        the paper keeps 0.15 (sigma_step = 0).
      t, t_growth, t_max: t of the barriers grows by a factor an epoch, up to the maximum; on
        CAMELYON16 the paper has 10, 1.1 and 30.
      scale: of the masked images' sides, rounded down.
      normalize: M is stretched to [0, 1] by the extremes of each "image" (the paper), or, as
        released, in training by those of the "batch" over all devices. Maps are always by image.

    Raises:
      ValueError: an unknown name, a number out of its range, or a schedule that begins above its
        end.
    """
    choices.require("background", background, (None, *BACKGROUND))
    choices.require("normalize", normalize, NORMALIZE)
    choices.require_number("background_weight", background_weight)
    choices.require_number("omega", omega, above=0)
    choices.require_number("sigma_step", sigma_step)
    choices.require_number("sigma", sigma, most=1)
    choices.require_number("scale", scale, above=0, most=1)
    choices.require_growth("sigma", sigma, sigma_max)
    barrier_t = losses.barrier_schedule(t, t_growth, t_max)
    model = MaxMin(
        encoder,
        head,
        head.clone(),
        omega=omega,
        first_sigma=sigma,
        scale=scale,
        normalize=normalize,
        axis_name=getattr(encoder, "axis_name", None),
    )

    def prepare(batch, keys):
        del keys
        return {**batch, "sigma": jnp.minimum(sigma + sigma_step * batch["epoch"], sigma_max)}

    def loss(outputs, batch):
        label, valid = batch["label"], batch["valid"]
        terms = {
            "image": (1.0, losses.cross_entropy(outputs["image_logits"], label, valid)),
            "foreground": (1.0, losses.cross_entropy(outputs["logits"], label, valid)),
        }
        if background:
            certainty = BACKGROUND[background](outputs["background_logits"])
            terms["background"] = (background_weight, losses.mean(certainty, valid))
        if size:
            masks = jnp.stack([outputs["mask"], 1 - outputs["mask"]])
            steepness = barrier_t(batch["epoch"])
            barriers = losses.log_barrier(-jnp.sum(masks, axis=(2, 3)), steepness)
            terms["size"] = (1.0, losses.mean(jnp.sum(barriers, axis=0), valid))
        return terms

    def localize(variables, image, label=None):
        del label  # the mask is of the localizer's own mixture of classes
        outputs = model.clone(normalize="image").apply(variables, image)
        return outputs["logits"], {"maxmin": outputs["mask"]}

    return Method(model, loss, localize, prepare, inputs=("image", "sigma"))


def mask(
    maps: Float[Array, "b H W"],
    *,
    omega: float,
    sigma: Float[Array, ""] | float,
    normalize: str = "image",
    axis_name: str | None = None,
) -> Float[Array, "b H W"]:
    """sigmoid(omega (M - sigma)) of maps stretched to [0, 1]; constant maps are stretched to 0.

    Args:
      normalize: by the extremes of each "image", or by those of the "batch".
      axis_name: devices that the batch lies on, under pmap.
    """
    axes = (1, 2) if normalize == "image" else (0, 1, 2)
    low, high = (extreme(maps, axis=axes, keepdims=True) for extreme in (jnp.min, jnp.max))
    if normalize == "batch" and axis_name:  # gathered, since lax.pmin and pmax have no derivative
        low = jnp.min(jax.lax.all_gather(low, axis_name), axis=0)
        high = jnp.max(jax.lax.all_gather(high, axis_name), axis=0)
    varied = high > low
    stretched = (maps - low) / jnp.where(varied, high - low, 1)
    return nn.sigmoid(omega * (jnp.where(varied, stretched, 0) - sigma))
