"""One split, every image once: maps and labels become counts on the devices, merged on the host."""

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float16

from wsol_jax import augment, choices, metrics, ops, parallel, separability
from wsol_jax.data import splits
from wsol_jax.method import Method

Maps = Float16[np.ndarray, "n h w"] | list[Float16[np.ndarray, "_ _"]]  # a list if shapes differ


class Protocol(NamedTuple):
    """How maps are judged: by which metric, and how they come to the size of the truth."""

    metric: type[metrics.PxAP] | type[metrics.Dice]
    align_corners: bool


PROTOCOLS = {
    "pxap": Protocol(metrics.PxAP, align_corners=False),  # PixelCAM's papers
    "dice": Protocol(metrics.Dice, align_corners=True),  # max-min's
}


class Scores(NamedTuple):
    """What a split's images add up to: label accuracy, the metric of each kind of map, and J.

    There is no accuracy where the method does not classify images.
    """

    accuracy: metrics.Accuracy | None
    maps: dict[str, metrics.PxAP | metrics.Dice]
    separability: separability.Separability


class Evaluator:
    """A method compiled for evaluation, on all devices.

    Maps are made for the true class, and resized bilinearly from the method's size to the truth's.

    Args:
      batch_size: over all devices, rounded up to a multiple of their number. Where it would pad a
        split by more than half, a quarter of it is taken, and so on: of few sizes, each of which is
        compiled, there is one for every split.
      metric: name of one of `PROTOCOLS`.
    """

    def __init__(self, method: Method, batch_size: int, metric: str = "pxap"):
        choices.require("metric", metric, PROTOCOLS)
        self._engine = parallel.engine("jit")
        self._batch_size = batch_size
        self._evaluate = parallel.compile_evaluation(_evaluation(method, metric))

    def place(self, variables: Any) -> Any:
        """Puts variables from the host on every device."""
        return self._engine.place(variables)

    def scores(self, variables: Any, split: splits.Split) -> Scores:
        """The scores of a split."""
        total = None
        for batch in self._batches(split):
            counts = jax.device_get(self._evaluate(variables, batch)[0])
            total = counts if total is None else _merge(total, counts)
        return total

    def maps(self, variables: Any, split: splits.Split) -> dict[str, Maps]:
        """Maps of every image in the order of the split, at the size that the method gives them."""
        placed = collections.defaultdict(lambda: [None] * split.size)
        for batch in self._batches(split):
            maps, index, valid = jax.device_get(self._evaluate(variables, batch)[1:])
            for name, values in maps.items():
                for position, row in zip(index[valid], values[valid], strict=True):
                    placed[name][position] = row.astype(np.float16)
        return {name: _joined(rows) for name, rows in placed.items()}

    def _batches(self, split):
        """Batches on the devices, which every device can share."""
        devices, hosts = jax.device_count(), (jax.process_index(), jax.process_count())
        size = devices * _share(self._batch_size, split.size, devices)
        return (self._engine.feed(batch) for batch in split.ordered(size, hosts=hosts))


def accuracy(scores: Scores) -> float | None:
    """Accuracy in percent, None where images are not classified."""
    return None if scores.accuracy is None else scores.accuracy.compute()


def summarize(scores: Scores, name: str, threshold: float | None) -> dict[str, Any]:
    """The numbers of one kind of map, in percent, and J; accuracy alone where no pixel has a label.

    Args:
      name: of the map.
      threshold: operating point chosen on other images, if there are such.
    """
    judged, numbers = scores.maps[name], {"accuracy": accuracy(scores)}
    if np.any(judged.pixels):
        numbers |= judged.summary(threshold) | {"separability": scores.separability.summary()}
    return numbers


def to_size(
    maps: Float[Array, "b h w"], shape: tuple[int, int], metric: str = "pxap"
) -> Float[Array, "b H W"]:
    """Maps at the size of the truth, in [0, 1] in spite of rounding."""
    options = {"align_corners": PROTOCOLS[metric].align_corners}
    return jnp.clip(ops.resize_maps(maps.astype(jnp.float32), shape, **options), 0, 1)


def _share(batch_size: int, images: int, devices: int) -> int:
    """A device's images of a batch that fills up a split of so many by half at most, or 1."""
    share = -(-batch_size // devices)
    while share > 1 and -images % (share * devices) > images / 2:
        share = -(-share // 4)
    return share


def _evaluation(method: Method, metric: str) -> Callable[[Any, dict[str, Array]], tuple]:
    """(variables, batch) -> scores, maps, and which images those are of.

    Whoever wants but one of them has the others at little cost, and they are compiled once.
    """
    judge = PROTOCOLS[metric].metric

    def evaluate(variables, batch):
        image = augment.eval_view(batch, **method.normalization)["image"]
        truth, valid = batch["mask"], batch["valid"]
        logits, maps = method.localize(variables, image, batch["label"])
        features = method.features(variables, image)  # those that the maps are made of
        full = {name: to_size(low, truth.shape[1:], metric) for name, low in maps.items()}
        facts = {"truth": truth, "valid": valid, "label": batch["label"]}
        accuracy = None
        if logits is not None:
            accuracy = metrics.Accuracy.from_model_output(logits, batch["label"], valid)
        scores = Scores(
            accuracy,
            {name: judge.from_model_output(m, **facts) for name, m in full.items()},
            separability.Separability.from_model_output(features, **facts),
        )
        return scores, maps, batch["index"], valid

    return evaluate


def _joined(rows):
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else rows


def _merge(left, right):
    maps = {name: left.maps[name].merge(right.maps[name]) for name in left.maps}
    classified = None if left.accuracy is None else left.accuracy.merge(right.accuracy)
    return Scores(classified, maps, left.separability.merge(right.separability))
