"""What a method is: a flax model and three pure functions, found by name.

Every trained localizer is one file under `methods/` with one function `make`. Training, batching,
checkpoints and metrics live elsewhere, once, and know nothing of it but this tuple.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from wsol_jax import augment, choices, methods


class Method(NamedTuple):
    """A localizer.

    Attributes:
      model: flax module with an `encoder`; `model.apply(variables, *inputs, keys=keys, train=True)`
        gives named outputs. The image alone is enough to initialize and to evaluate it.
      loss: (outputs, batch) -> {name: (coefficient, term)}, a term being a `losses.Ratio` or
        `losses.Distance`; the objective is the sum of coefficient times term.
      localize: (variables, image, label) -> (logits (b k), {name: map (b h w)}), in [0, 1] and
        of any size; higher means object. A label of None stands for the predicted class.
        Logits of None: the method does not classify images.
      prepare: (batch, keys) -> batch with what the loss needs beside images and labels; one
        random key per image. The number of the epoch is in batch["epoch"].
      mean, std: of the RGB values, in [0, 1], of the images that its weights were trained with.
      frozen: top modules of the model that do not learn ("encoder", "head").
      inputs: entries of the prepared batch that training calls the model with.
      full_masks: whether it learns from pixel labels, as an upper bound does.
    """

    model: nn.Module
    loss: Callable[..., dict[str, Any]]
    localize: Callable[..., Any]
    prepare: Callable[..., dict[str, Any]] = lambda batch, keys: batch
    frozen: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("image",)
    full_masks: bool = False
    mean: tuple[float, float, float] = augment.IMAGENET_MEAN
    std: tuple[float, float, float] = augment.IMAGENET_STD

    @property
    def normalization(self) -> dict[str, tuple[float, ...]]:
        """The keywords of `augment.train_view` and `augment.eval_view`."""
        return {"mean": self.mean, "std": self.std}

    def features(self, variables: Any, image: Float[Array, "b H W 3"]) -> Float[Array, "b h w c"]:
        """The last level of the encoder; in one program with `localize` it costs nothing more."""
        return self.model.apply(variables, image, method=lambda model, x: model.encoder(x)[-1])


def build(name: str, encoder: nn.Module, head: nn.Module | None, **keywords) -> Method:
    """The method of the file `methods/<name>.py`; the keywords are those of its `make`.

    Raises:
      ValueError: there is no such method, it has no such keyword, or needs a head.
    """
    make = _file(name).make
    choices.require_known("method", name, keywords, defaults(name))
    if head is None and inspect.signature(make).parameters["head"].default is not None:
        raise ValueError(
            f"the method {name!r} has no head; expected a pooling head as `head` of the config, "
            "such as common.head('wgap')"
        )
    return make(encoder, head, **keywords)


def version(name: str) -> int:
    """The number that the method's file declares, and raises when its numbers change."""
    return _file(name).VERSION


def defaults(name: str) -> dict[str, Any]:
    """The keywords of a method and their usual values."""
    parameters = inspect.signature(_file(name).make).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _file(name):
    names = sorted(module.name for module in pkgutil.iter_modules(methods.__path__))
    choices.require("method", name, names)
    return importlib.import_module(f"wsol_jax.methods.{name}")
