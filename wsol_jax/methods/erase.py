"""ERASE: adversarial erasing, rounds of classifying and erasing what was seen (max-min's Table 1).

After Wei et al., "Object Region Mining with Adversarial Erasing", CVPR 2017. The max-min paper
erases the pixels within the top 20 % of the largest activation and gives one network of 11,326,016
parameters: a deep-stem ResNet-18 and a 512 x 2 layer without bias. No code was released. Chosen
here, since one network cannot be trained anew in every round:

- every training image is erased 0 to rounds - 1 times, drawn uniformly, by the network as it is,
  in evaluation and without a gradient, so that it learns to classify by what is left;
- a round's activation is the map of the image's class, at the image's size, stretched to [0, 1], so
  that the top 20 % are those of its range;
- erased pixels become zero, which is mid-grey on GlaS and black where images are not normalised;
- the region of an image is the union of its rounds, and its class is read before any erasing.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from wsol_jax import cams, choices, losses, ops
from wsol_jax.method import Method

VERSION = 1  # to be raised when the numbers change


class Erase(nn.Module):
    """Class logits of an image, erased `times` (b) times beforehand where that is given."""

    encoder: nn.Module
    head: nn.Module
    rounds: int
    top: float

    def __call__(self, image, label=None, times=None, keys=None, train=False):
        encoder_keys, head_keys = ops.split_keys(keys, 2)
        if times is not None:
            image, _ = self.mine(image, label, self.rounds - 1, times)
        features = self.encoder(image, encoder_keys, train)[-1]
        return {"logits": self.head(features, head_keys, train)}

    def mine(self, image, label, rounds, times=None):
        """The image erased in each of the rounds (no more than `times`), and its activation."""
        union = jnp.zeros(image.shape[:3], image.dtype)
        for done in range(rounds):
            activation = jax.lax.stop_gradient(self._activation(image, label))
            union = jnp.maximum(union, activation)
            erased = activation >= 1 - self.top
            if times is not None:
                erased &= (times > done)[:, None, None]
            image = jnp.where(erased[..., None], 0, image)
        return image, union

    def _activation(self, image, label):
        maps = self.head.maps(self.encoder(image)[-1])
        own = cams.pick(maps, label)
        return ops.min_max(ops.resize_maps(own, image.shape[1:3], align_corners=True))


def make(
    encoder: nn.Module,
    head: nn.Module,
    *,
    rounds: int = 3,
    top: float = 0.2,
    object_class: int | None = None,
) -> Method:
    """Cross-entropy of images that have been erased some times.

    Args:
      encoder: image (b H W 3) -> feature levels, the last of which (b h w c) is used.
      head: features -> logits (b k), with the class maps that it pools as `maps`.
      rounds: maps whose union is the region; all but the last erase.
      top: how far below the largest activation a pixel still belongs to the region, in (0, 1).
      object_class: the class that is localized; that of the image unless given.
    """
    choices.require_number("rounds", rounds, least=1)
    choices.require_number("top", top, above=0, below=1)
    choices.require("object_class", object_class, (None, *range(head.num_classes)))
    model = Erase(encoder, head, rounds, top)

    def prepare(batch, keys):
        draw = functools.partial(jax.random.randint, shape=(), minval=0, maxval=rounds)
        return {**batch, "times": jax.vmap(draw)(keys)}

    def loss(outputs, batch):
        image = losses.cross_entropy(outputs["logits"], batch["label"], batch["valid"])
        return {"image": (1.0, image)}

    def localize(variables, image, label=None):
        logits = model.apply(variables, image)["logits"]
        label = cams.localized(logits, label, object_class)
        _, union = model.apply(variables, image, label, rounds, method="mine")
        return logits, {"erase": _centred(union, 1 - top)}

    return Method(model, loss, localize, prepare, inputs=("image", "label", "times"))


def _centred(activation, border):
    """Activations in [0, 1], stretched on either side so that `border` comes to one half."""
    below, above = activation / border, (activation - border) / (1 - border)
    return jnp.where(activation >= border, 0.5 + 0.5 * above, 0.5 * below)
