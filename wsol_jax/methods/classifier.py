"""The image classifier, whose localization is read out of it: the baseline of every other method.

One trained classifier serves all read-outs of `cams.py`.
"""

import functools

import flax.linen as nn

from wsol_jax import cams, choices, heads, losses, ops
from wsol_jax.method import Method

VERSION = 1  # to be raised when the numbers change


class Classifier(nn.Module):
    """Features, then a pooling head; spatial dropout in between while training."""

    encoder: nn.Module
    head: nn.Module
    dropout: float = 0.0

    def __call__(self, image, keys=None, train=False):
        encoder_keys, dropout_keys, head_keys = ops.split_keys(keys, 3)
        features = self.encode(image, encoder_keys, train)
        if train and self.dropout:
            features = ops.drop_channels(features, dropout_keys, self.dropout)
        return {"logits": self.head(features, head_keys, train)}

    def encode(self, image, keys=None, train=False):
        return self.encoder(image, keys, train)[-1]

    def classify(self, features):
        return self.head(features)

    def class_maps(self, features):
        return self.head.maps(features)


def make(
    encoder: nn.Module,
    head: nn.Module,
    *,
    readouts: tuple[str, ...] = ("layer_cam",),
    dropout: float = 0.0,
    bounded: bool = False,
    object_class: int | None = None,
) -> Method:
    """Cross-entropy on image labels; maps are min-max normalised read-outs.

    Args:
      encoder: image (b H W 3) -> feature levels, the last of which (b h w c) is used.
      head: features -> logits (b k).
      readouts: names of functions in `cams.py`; "deep_mil" goes with the head of that name, whose
        pixels have no class scores for "cam".
      dropout: rate of spatial dropout between features and head.
      bounded: scale maps so that one half is the border of the object (`cams.bounded`, max-min's
        baselines), in place of min-max.
      object_class: the class that is localized; that of the image unless given.

    Raises:
      ValueError: an unknown name, a number out of its range, or a read-out that the head does not
        have.
    """
    choices.require_number("dropout", dropout, below=1)
    choices.require("object_class", object_class, (None, *range(head.num_classes)))
    attends = isinstance(head, heads.DeepMIL)
    if not readouts or ("cam" if attends else "deep_mil") in readouts:
        needed = "no 'cam', whose class scores it does not have" if attends else "no 'deep_mil'"
        raise ValueError(
            f"readouts is {readouts}; expected one or more and, with a head that is "
            f"{type(head).__name__}, {needed}"
        )
    model = Classifier(encoder, head, dropout)
    functions = {name: cams.readout(name) for name in readouts}

    def loss(outputs, batch):
        image = losses.cross_entropy(outputs["logits"], batch["label"], batch["valid"])
        return {"image": (1.0, image)}

    def localize(variables, image, label=None):
        apply = functools.partial(model.apply, variables)
        features = apply(image, method="encode")
        head = cams.Head(
            functools.partial(apply, method="classify"),
            functools.partial(apply, method="class_maps"),
        )
        logits = head.score(features)
        label = cams.localized(logits, label, object_class)
        if bounded:
            maps = {n: cams.bounded(f, head, features, label) for n, f in functions.items()}
        else:
            maps = {n: ops.min_max(f(head, features, label)) for n, f in functions.items()}
        return logits, maps

    return Method(model, loss, localize)
