"""Metrics as integer counts over a split: PxAP, operating points, Dice and accuracy.

A batch leaves the device as int32 counts and the host adds them in int64 (CAMELYON16 has 4.1e9
pixels), so numbers are exact and do not depend on order, batch size, padding or devices. PxAP:
"Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020, section 4. F1+ and F1-:
"Deep Interpretable Classification and Weakly-Supervised Segmentation of Histology Images via
Max-Min Uncertainty", IEEE TMI 2022, section IV.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, UInt8

from wsol_jax import pixel_counts
from wsol_jax.pixel_labels import UNANNOTATED

try:
    from clu.metrics import Metric
except ModuleNotFoundError:  # Accelerator images often lack clu; all methods we use are below.
    Metric = object

BOUNDARY = 0.5  # `Dice` counts scores from here on as foreground


class UncountableError(ValueError, FloatingPointError):
    """Scores, or a truth, that are none, of a model that has diverged perhaps."""


class _Counts(Metric):
    """A sum of integers: int32 for one batch on the device, int64 once merged on the host."""

    def merge(self, other: "_Counts") -> "_Counts":
        """Adds the counts of two parts of a split, on the host: it cannot be traced."""
        return jax.tree.map(lambda x, y: _host(x) + _host(y), self, other)

    def reduce(self) -> "_Counts":
        """Adds the counts of one batch that devices gathered along a new first axis."""
        return jax.tree.map(lambda x: x.sum(axis=0), self)


@flax.struct.dataclass
class PxAP(_Counts):
    """Pixel average precision in percent, over all annotated pixels of a split together.

    Args:
      counts: `pixel_counts.histogram` of the images so far.
      pixels: number of their annotated pixels, which `counts` must add up to.
    """

    name = "pxap"
    counts: Any
    pixels: Any

    @classmethod
    def empty(cls) -> "PxAP":
        """The counts of no image."""
        return cls(
            counts=np.zeros((2, len(pixel_counts.edges()) - 1), np.int64), pixels=np.int64(0)
        )

    @classmethod
    def from_model_output(
        cls,
        scores: Float[Array, "b H W"],
        truth: UInt8[Array, "b H W"],
        valid: Bool[Array, "b"],
        **_: Any,
    ) -> "PxAP":
        """The counts of one batch; the arguments are those of `pixel_counts.histogram`."""
        annotated = (truth != UNANNOTATED) & valid[:, None, None]
        return cls(
            pixel_counts.histogram(scores, truth, valid), jnp.sum(annotated, dtype=jnp.int32)
        )

    def merge(self, other: "PxAP") -> "PxAP":
        """Adds two parts of a split; UncountableError where a score or a truth was not counted."""
        merged = super().merge(other)
        _require_counted(merged.pixels.sum(), merged.counts.sum())
        return merged

    def compute(self) -> float:
        """Area under the precision-recall curve, 0 to 100; ValueError without foreground."""
        checked = self.merge(self.empty())
        return pixel_counts.average_precision(checked.counts)

    def threshold(self) -> float:
        """The operating point that these images would choose."""
        return pixel_counts.best_threshold(self.counts)

    def summary(self, threshold: float | None) -> dict[str, Any]:
        """The numbers of a split, in percent.

        Args:
          threshold: operating point chosen on other images, if there are such; the one best for
            these images is reported beside it, under its own name.
        """
        points = {"at_best_test_threshold": self.threshold()}
        if threshold is not None:
            points["at_validation_threshold"] = threshold
        precision, recall = pixel_counts.curve(self.counts)
        reached = np.isfinite(precision)
        return {
            "pxap": self.compute(),
            **{name: pixel_counts.rates(self.counts, point) for name, point in points.items()},
            "curve": {
                "recall": recall[reached].round(5).tolist(),
                "precision": precision[reached].round(5).tolist(),
            },
        }


@flax.struct.dataclass
class Dice(_Counts):
    """F1 of foreground (F1+) and of background (F1-) at a fixed boundary, averaged over images.

    Images without foreground have no part in F1+, images without background none in F1-: the
    released convention, which the published score of an all-foreground map fits.

    Args:
      counts: pixels of every image by truth and prediction (n 2 2), 0 background and 1 foreground;
        all zero for rows that only fill a batch.
      pixels: their annotated pixels (n), which `counts` must add up to.
      labels: classes of the images (n).
    """

    name = "dice"
    counts: Any
    pixels: Any
    labels: Any

    @classmethod
    def empty(cls) -> "Dice":
        """The counts of no image."""
        none = np.zeros(0, np.int64)
        return cls(counts=np.zeros((0, 2, 2), np.int64), pixels=none, labels=none)

    @classmethod
    def from_model_output(
        cls,
        scores: Float[Array, "b H W"],
        truth: UInt8[Array, "b H W"],
        valid: Bool[Array, "b"],
        label: Integer[Array, "b"],
        **_: Any,
    ) -> "Dice":
        """The counts of one batch; arguments as of `pixel_counts.histogram`, and the classes."""
        annotated = (truth != UNANNOTATED) & valid[:, None, None]
        counted = annotated & (truth <= 1) & (scores >= 0) & (scores <= 1)  # False for NaN
        predicted = scores >= BOUNDARY
        cells = [
            counted & (truth == true) & (predicted == bool(found))
            for true in (0, 1)
            for found in (0, 1)
        ]
        counts = jnp.stack([jnp.sum(c, axis=(1, 2), dtype=jnp.int32) for c in cells], axis=-1)
        pixels = jnp.sum(annotated, axis=(1, 2), dtype=jnp.int32)
        return cls(counts.reshape(-1, 2, 2), pixels, label.astype(jnp.int32))

    def merge(self, other: "Dice") -> "Dice":
        """The images of both; UncountableError where a score or a truth could not be counted."""
        merged = jax.tree.map(lambda x, y: np.concatenate([_host(x), _host(y)]), self, other)
        _require_counted(merged.pixels.sum(), merged.counts.sum())
        return merged

    def reduce(self) -> "Dice":
        """The images of one batch that devices gathered along a new first axis."""
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), self)

    def compute(self) -> float:
        """Mean of F1+ and F1-, 0 to 100.

        A map that is all foreground reaches at most 50, unless images have no background.
        """
        return float(np.nanmean(self._f1()))

    def threshold(self) -> float:
        """The boundary."""
        return BOUNDARY

    def summary(self, threshold: float | None = None) -> dict[str, Any]:
        """The numbers of a split, in percent, at the boundary, whatever others have chosen.

        The confusion matrix pools all pixels and divides each row, one true class, by its sum.
        `regions` has the share of every image that is foreground, true and predicted, and
        `foreground_share` the mean of the predicted one over the images of each class.
        """
        del threshold
        background, foreground = self._f1()
        counts, labels = self._images()
        pooled = counts.sum(axis=0)
        (tn, fp), (fn, tp) = 100 * pixel_counts.ratio(pooled, pooled.sum(axis=1, keepdims=True))
        share = 100 / counts.sum(axis=(1, 2))
        predicted = share * counts[:, :, 1].sum(axis=-1)
        return {
            "dice": self.compute(),
            "threshold": BOUNDARY,
            "f1_foreground": float(foreground),
            "f1_background": float(background),
            "confusion": {"tp": float(tp), "fn": float(fn), "tn": float(tn), "fp": float(fp)},
            "foreground_share": {
                str(label): float(predicted[labels == label].mean()) for label in np.unique(labels)
            },
            "regions": {
                "true": (share * counts[:, 1].sum(axis=-1)).round(3).tolist(),
                "predicted": predicted.round(3).tolist(),
            },
        }

    def _images(self) -> tuple[Int[np.ndarray, "n 2 2"], Int[np.ndarray, "n"]]:
        """Counts and labels of the images, without the rows that only fill a batch."""
        checked = self.merge(self.empty())
        filled = checked.pixels > 0
        return checked.counts[filled], checked.labels[filled]

    def _f1(self) -> Float[np.ndarray, "2"]:
        """F1- and F1+ in percent; NaN where no image has such pixels."""
        scores = image_dice(self._images()[0])
        known = np.isfinite(scores)
        return 100 * pixel_counts.ratio(np.where(known, scores, 0).sum(axis=0), known.sum(axis=0))


@flax.struct.dataclass
class Accuracy(_Counts):
    """Classification accuracy in percent, from the numbers of correct and of all valid images.

    Args:
      correct: number of valid images whose largest logit is that of the label.
      total: of valid images.
      undefined: of those with a logit that is not finite.
    """

    correct: Any
    total: Any
    undefined: Any

    @classmethod
    def empty(cls) -> "Accuracy":
        """The counts of no image."""
        return cls(correct=np.int64(0), total=np.int64(0), undefined=np.int64(0))

    @classmethod
    def from_model_output(
        cls,
        logits: Float[Array, "b k"],
        label: Integer[Array, "b"],
        valid: Bool[Array, "b"],
        **_: Any,
    ) -> "Accuracy":
        """The counts of one batch, without the rows that are not `valid`."""
        correct = (jnp.argmax(logits, axis=-1) == label) & valid
        undefined = ~jnp.all(jnp.isfinite(logits), axis=-1) & valid
        return cls(*(jnp.sum(images, dtype=jnp.int32) for images in (correct, valid, undefined)))

    def compute(self) -> float:
        """Share of correct images, 0 to 100.

        Raises:
          ValueError: without images.
          FloatingPointError: a logit is not finite; the largest of NaNs would be the first class.
        """
        correct, total, undefined = map(_host, (self.correct, self.total, self.undefined))
        if total == 0:
            raise ValueError("accuracy is undefined: 0 valid images, expected at least 1")
        if undefined:
            raise FloatingPointError(f"the logits of {undefined} of {total} images are not finite")
        return float(100 * correct / total)


def image_dice(counts: Int[np.ndarray, "n 2 2"]) -> Float[np.ndarray, "n 2"]:
    """Dice of background and foreground of every image; NaN where it has no such pixel.

    2 n_cc / (pixels that are c + pixels predicted as c), without smoothing.

    Args:
      counts: pixels by truth and prediction, as in `Dice`.
    """
    true, predicted = counts.sum(axis=2), counts.sum(axis=1)
    hit = np.diagonal(counts, axis1=1, axis2=2)
    return np.where(true > 0, pixel_counts.ratio(2 * hit, true + predicted), np.nan)


def _require_counted(pixels: np.int64, counted: np.int64) -> None:
    if pixels != counted:
        raise UncountableError(
            f"{pixels - counted} of {pixels} pixels cannot be counted: expected scores in [0, 1] "
            "and truth 0, 1 or 255, got NaN, other scores or other truth. Rounding can lift "
            "resized scores above 1: clip them to [0, 1]"
        )


def _host(counts: Any) -> np.ndarray:
    """The counts in the host's memory, as int64."""
    return np.asarray(jax.device_get(counts), np.int64)
