"""Metrics as integer counts over a split: PxAP, operating points, Dice, accuracy, separability.

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

try:
    from clu.metrics import Metric
except ModuleNotFoundError:  # Accelerator images often lack clu; all methods we use are below.
    Metric = object

Numbers = np.ndarray | np.generic  # at every threshold, or at one
IGNORED = 255  # truth of pixels without annotation
BOUNDARY = 0.5  # `Dice` counts scores from here on as foreground


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
      counts: `pixel_counts` of the images so far.
      pixels: number of their annotated pixels, which `counts` must add up to.
    """

    name = "pxap"
    counts: Any
    pixels: Any

    @classmethod
    def empty(cls) -> "PxAP":
        """The counts of no image."""
        return cls(counts=np.zeros((2, len(edges()) - 1), np.int64), pixels=np.int64(0))

    @classmethod
    def from_model_output(
        cls,
        scores: Float[Array, "b H W"],
        truth: UInt8[Array, "b H W"],
        valid: Bool[Array, "b"],
        **_: Any,
    ) -> "PxAP":
        """The counts of one batch; the arguments are those of `pixel_counts`."""
        annotated = (truth != IGNORED) & valid[:, None, None]
        return cls(pixel_counts(scores, truth, valid), jnp.sum(annotated, dtype=jnp.int32))

    def merge(self, other: "PxAP") -> "PxAP":
        """Adds two parts of a split; ValueError where a score or a truth could not be counted."""
        merged = super().merge(other)
        missing = merged.pixels - merged.counts.sum()
        if missing:
            raise ValueError(
                f"{missing} of {merged.pixels} pixels cannot be counted: expected scores in [0, 1] "
                "and truth 0, 1 or 255, got NaN, other scores or other truth. Rounding can lift "
                "resized scores above 1: clip them to [0, 1]"
            )
        return merged

    def compute(self) -> float:
        """Area under the precision-recall curve, 0 to 100; ValueError without foreground."""
        checked = self.merge(self.empty())
        return average_precision(checked.counts)

    def threshold(self) -> float:
        """The operating point that these images would choose."""
        return best_threshold(self.counts)

    def summary(self, threshold: float) -> dict[str, Any]:
        """The numbers of a split, in percent.

        Args:
          threshold: operating point chosen on other images; the one best for these images is
            reported beside it, under its own name.
        """
        precision, recall = curve(self.counts)
        reached = np.isfinite(precision)
        return {
            "pxap": self.compute(),
            "at_validation_threshold": rates(self.counts, threshold),
            "at_best_test_threshold": rates(self.counts, best_threshold(self.counts)),
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
        """The counts of one batch; the arguments are those of `pixel_counts`, and the classes."""
        annotated = (truth != IGNORED) & valid[:, None, None]
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
        """The images of both; ValueError where a score or a truth could not be counted."""
        merged = jax.tree.map(lambda x, y: np.concatenate([_host(x), _host(y)]), self, other)
        missing = merged.pixels - merged.counts.sum(axis=(1, 2))
        if missing.any():
            raise ValueError(
                f"{missing.sum()} of {merged.pixels.sum()} pixels cannot be counted: expected "
                "scores in [0, 1] and truth 0, 1 or 255, got NaN, other scores or other truth"
            )
        return merged

    def reduce(self) -> "Dice":
        """The images of one batch that devices gathered along a new first axis."""
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), self)

    def compute(self) -> float:
        """Mean of F1+ and F1-, 0 to 100: a map that is all foreground reaches at most 50."""
        return float(np.nanmean(self._f1()))

    def threshold(self) -> float:
        """The boundary."""
        return BOUNDARY

    def summary(self, threshold: float = BOUNDARY) -> dict[str, Any]:
        """The numbers of a split, in percent.

        The confusion matrix pools all pixels and divides each row, one true class, by its sum.
        `regions` has the share of every image that is foreground, true and predicted, and
        `foreground_share` the mean of the predicted one over the images of each class.
        """
        background, foreground = self._f1()
        counts, labels = self._images()
        pooled = counts.sum(axis=0)
        (tn, fp), (fn, tp) = 100 * _ratio(pooled, pooled.sum(axis=1, keepdims=True))
        share = 100 / counts.sum(axis=(1, 2))
        predicted = share * counts[:, :, 1].sum(axis=-1)
        return {
            "dice": self.compute(),
            "threshold": threshold,
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
        return 100 * _ratio(np.where(known, scores, 0).sum(axis=0), known.sum(axis=0))


@flax.struct.dataclass
class Accuracy(_Counts):
    """Classification accuracy in percent, from the numbers of correct and of all valid images."""

    correct: Any
    total: Any

    @classmethod
    def empty(cls) -> "Accuracy":
        """The counts of no image."""
        return cls(correct=np.int64(0), total=np.int64(0))

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
        return cls(jnp.sum(correct, dtype=jnp.int32), jnp.sum(valid, dtype=jnp.int32))

    def compute(self) -> float:
        """Share of correct images, 0 to 100; ValueError without images."""
        correct, total = _host(self.correct), _host(self.total)
        if total == 0:
            raise ValueError("accuracy is undefined: 0 valid images, expected at least 1")
        return float(100 * correct / total)


def edges(interval: float = 0.001) -> Float[np.ndarray, "n"]:
    """Edges of the score bins: 0, interval, 2 interval, ... below 1, then 1, 2 and 3.

    Bin i holds edges[i] <= score < edges[i + 1]: scores of exactly 1 have a bin of their own, and
    the last bin is empty, which is where the curve of `average_precision` starts.
    """
    if not 0 < interval <= 1 or abs(1 / interval - round(1 / interval)) > 1e-9:
        raise ValueError(f"interval is {interval}, expected 1/n for a whole n, as 0.001 or 0.004")
    return np.append(np.arange(0.0, 1.0, interval), [1.0, 2.0, 3.0])


def pixel_counts(
    scores: Float[Array, "b H W"],
    truth: UInt8[Array, "b H W"],
    valid: Bool[Array, "b"],
    *,
    interval: float = 0.001,
) -> Int[Array, "2 bins"]:
    """Histograms of the scores over `edges(interval)`: row 0 background, row 1 foreground; int32.

    Equal to numpy.histogram with float64 edges for every score of whatever precision. Pixels are
    left out if their image is not valid, if their truth is neither 0 nor 1, or if their score is
    NaN or outside [0, 1], which `PxAP` reports.

    Args:
      scores: values in [0, 1], higher means foreground.
      truth: 0 background, 1 foreground, 255 ignored.
      valid: False for the images that only fill the batch.
    """
    limits = edges(interval)
    bins = len(limits) - 1
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    limits = jnp.asarray(_rounded_up(limits, scores.dtype))
    inside = (scores >= 0) & (scores <= 1)  # False for NaN
    nearest = jnp.round(jnp.where(inside, scores, 0) / interval).astype(jnp.int32)
    below = scores < limits.at[nearest].get(mode="promise_in_bounds")
    counted = inside & (truth <= 1) & valid[:, None, None]
    index = jnp.where(counted, truth.astype(jnp.int32) * bins + nearest - below, 2 * bins)
    return jnp.zeros(2 * bins, jnp.int32).at[index].add(1, mode="drop").reshape(2, bins)


def curve(
    counts: Int[np.ndarray, "2 bins"],
) -> tuple[Float[np.ndarray, "bins"], Float[np.ndarray, "bins"]]:
    """Precision and recall in [0, 1] at every threshold, from the highest to 0.

    Precision is NaN at thresholds that no pixel reaches, recall is NaN without foreground.
    """
    tp, fp, fn, _ = _confusion(counts)
    return _ratio(tp, tp + fp), _ratio(tp, tp + fn)


def average_precision(counts: Int[np.ndarray, "2 bins"]) -> float:
    """PxAP in percent, 100 sum_i precision_i (recall_i - recall_{i-1}), thresholds descending.

    The sum leaves out the first *bin*, which is empty, and not the first bin that holds pixels:
    the step from recall 0 belongs to the area. ValueError without foreground.
    """
    if counts[1].sum() == 0:
        raise ValueError(f"PxAP is undefined: 0 foreground pixels among {counts.sum()}")
    precision, recall = curve(counts)
    # Where precision is NaN no pixel has been reached, and recall has not risen.
    return float(100 * np.dot(np.nan_to_num(precision[1:]), np.diff(recall)))


def rates(counts: Int[np.ndarray, "2 bins"], threshold: float) -> dict[str, float]:
    """Operating point where pixels with score >= `threshold` are foreground, in percent.

    tp and fn are shares of the foreground, tn and fp of the background (PixelCAM, table 6). What
    has no pixel to be a share of is NaN.

    Args:
      threshold: one of the edges of the bins; 2 makes nothing foreground. ValueError otherwise.
    """
    thresholds = _thresholds(counts)
    index = int(np.argmin(np.abs(thresholds - threshold)))
    if not abs(thresholds[index] - threshold) < 1e-6:
        raise ValueError(
            f"threshold is {threshold}, expected one of {thresholds[-1]}, {thresholds[-2]}, ..., "
            f"{thresholds[1]}, {thresholds[0]}; the nearest is {thresholds[index]}"
        )
    tp, fp, fn, tn = (value[index] for value in _confusion(counts))
    shares = {
        "tp": _ratio(tp, tp + fn),
        "fn": _ratio(fn, tp + fn),
        "tn": _ratio(tn, tn + fp),
        "fp": _ratio(fp, tn + fp),
        "dice_foreground": _ratio(2 * tp, 2 * tp + fp + fn),
        "dice_background": _ratio(2 * tn, 2 * tn + fp + fn),
        "miou": _mean_iou(tp, fp, fn, tn),
    }
    percent = {name: float(100 * share) for name, share in shares.items()}
    return {"threshold": float(thresholds[index]), **percent}


def best_threshold(counts: Int[np.ndarray, "2 bins"]) -> float:
    """Threshold of the highest mIoU = (IoU_foreground + IoU_background) / 2, the highest if many.

    The released code chooses the same point but reports a threshold read from the wrong end of
    its list, about 1.001 minus the real one.
    """
    # The mIoU is NaN only where a class has no pixel, predicted or true. That map is perfect, and
    # argmax takes the first NaN for the maximum.
    return float(_thresholds(counts)[np.argmax(_mean_iou(*_confusion(counts)))])


def image_dice(counts: Int[np.ndarray, "n 2 2"]) -> Float[np.ndarray, "n 2"]:
    """Dice of background and foreground of every image; NaN where it has no such pixel.

    2 n_cc / (pixels that are c + pixels predicted as c), without smoothing.

    Args:
      counts: pixels by truth and prediction, as in `Dice`.
    """
    true, predicted = counts.sum(axis=2), counts.sum(axis=1)
    hit = np.diagonal(counts, axis1=1, axis2=2)
    return np.where(true > 0, _ratio(2 * hit, true + predicted), np.nan)


def separability(features: Float[np.ndarray, "h w c"], mask: UInt8[np.ndarray, "h w"]) -> float:
    """Class separability of one image's pixel features (PixelCAM, appendix D, eq. 4-6).

    J = tr(S_B) / tr(S_W) = sum_i n_i |m_i - m|^2 / sum_ij |x_ij - m_i|^2, where class i has the
    n_i features x_ij of mean m_i. NaN if one class has no pixel.

    Args:
      mask: 0 background, 1 foreground, 255 ignored, at the resolution of the features.
    """
    groups = [features[mask == value].astype(np.float64) for value in (0, 1)]
    if any(len(group) == 0 for group in groups):
        return float("nan")
    mean = np.concatenate(groups).mean(axis=0)
    between = sum(len(group) * np.sum((group.mean(axis=0) - mean) ** 2) for group in groups)
    within = sum(np.sum((group - group.mean(axis=0)) ** 2) for group in groups)
    return float(_ratio(between, within))


def _rounded_up(limits: Float[np.ndarray, "n"], dtype: np.dtype) -> Float[np.ndarray, "n"]:
    """Smallest numbers of `dtype` not below `limits`: comparing with them is exact."""
    rounded = limits.astype(dtype)
    return np.where(rounded < limits, np.nextafter(rounded, dtype.type(np.inf)), rounded)


def _thresholds(counts: Int[np.ndarray, "2 bins"]) -> Float[np.ndarray, "bins"]:
    """Lower edges of the bins, from the highest to 0."""
    return edges(1 / (counts.shape[1] - 2))[-2::-1]


def _confusion(counts: Int[np.ndarray, "2 bins"]) -> tuple[Int[np.ndarray, "bins"], ...]:
    """True positive, false positive, false negative and true negative pixels at `_thresholds`."""
    fp, tp = np.cumsum(counts[:, ::-1], axis=1, dtype=np.int64)
    return tp, fp, tp[-1] - tp, fp[-1] - fp


def _mean_iou(tp: Numbers, fp: Numbers, fn: Numbers, tn: Numbers) -> Numbers:
    """Mean of the intersection over union of foreground and background."""
    return (_ratio(tp, tp + fp + fn) + _ratio(tn, tn + fp + fn)) / 2


def _ratio(part: Numbers, whole: Numbers) -> Numbers:
    """part / whole, where 0 / 0 is NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.true_divide(part, whole)


def _host(counts: Any) -> np.ndarray:
    """The counts in the host's memory, as int64."""
    return np.asarray(jax.device_get(counts), np.int64)
