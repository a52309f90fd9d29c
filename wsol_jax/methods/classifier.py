"""The image classifier, whose localization is read out of it: the baseline of every other method.

One trained classifier serves all read-outs of `cams.py`.
"""

import flax.linen as nn
import jax.numpy as jnp

from wsol_jax import cams, losses, ops
from wsol_jax.method import Method


class Classifier(nn.Module):
    """Features, then a pooling head; spatial dropout in between while training."""

    encoder: nn.Module
    head: nn.Module
    dropout: float = 0.0

    def __call__(self, image, keys=None, train=False):
        features = self.encode(image, train)
        if train and self.dropout:
            features = ops.drop_channels(features, keys, self.dropout)
        return {"logits": self.classify(features)}

    def encode(self, image, train=False):
        return self.encoder(image, train)[-1]

    def classify(self, features):
        return self.head(features)


def make(
    encoder: nn.Module,
    head: nn.Module,
    *,
    readouts: tuple[str, ...] = ("layer_cam",),
    dropout: float = 0.0,
) -> Method:
    """Cross-entropy on image labels; maps are min-max normalised read-outs.

    Args:
      encoder: image (b H W 3) -> feature levels, the last of which (b h w c) is used.
      head: features -> logits (b k).
      readouts: names of functions in `cams.py`.
      dropout: rate of spatial dropout between features and head.
    """
    model = Classifier(encoder, head, dropout)
    functions = {name: cams.readout(name) for name in readouts}

    def prepare(batch, keys):
        del keys
        return batch

    def loss(outputs, batch):
        image = losses.cross_entropy(outputs["logits"], batch["label"], batch["valid"])
        return {"image": (1.0, image)}

    def localize(variables, image, label=None):
        def score(features):
            return model.apply(variables, features, method="classify")

        features = model.apply(variables, image, method="encode")
        logits = score(features)
        label = jnp.argmax(logits, axis=-1) if label is None else label
        raw = {name: readout(score, features, label) for name, readout in functions.items()}
        return logits, {name: ops.min_max(cam) for name, cam in raw.items()}

    return Method(model, prepare, loss, localize)
