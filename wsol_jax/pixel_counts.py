"""Histograms of scores over foreground and background, and what they say at every threshold.

Counts are exact: int32 for one batch on the device, added on the host by `metrics.PxAP`.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from wsol_jax import ops

Numbers = np.ndarray | np.generic  # at every threshold, or at one


def edges(interval: float = 0.001) -> Float[np.ndarray, "n"]:
    """Edges of the score bins: 0, interval, 2 interval, ... below 1, then 1, 2 and 3.

    Bin i holds edges[i] <= score < edges[i + 1]: scores of exactly 1 have a bin of their own, and
    the last bin is empty, which is where the curve of `average_precision` starts.
    """
    if not 0 < interval <= 1 or abs(1 / interval - round(1 / interval)) > 1e-9:
        raise ValueError(f"interval is {interval}, expected 1/n for a whole n, as 0.001 or 0.004")
    return np.append(np.arange(round(1 / interval)) * interval, [1.0, 2.0, 3.0])


def histogram(
    scores: Float[Array, "b H W"],
    truth: UInt8[Array, "b H W"],
    valid: Bool[Array, "b"],
    *,
    interval: float = 0.001,
) -> Int[Array, "2 bins"]:
    """Histograms of the scores over `edges(interval)`: row 0 background, row 1 foreground; int32.

    Equal to numpy.histogram with float64 edges for every score of whatever precision. Pixels are
    left out if their image is not valid, if their truth is neither 0 nor 1, or if their score is
    NaN or outside [0, 1], which `metrics.PxAP` reports.

    Args:
      scores: values in [0, 1], higher means foreground.
      truth: 0 background, 1 foreground, 255 ignored.
      valid: False for the images that only fill the batch.
    """
    limits = edges(interval)
    bins = len(limits) - 1
    scores = ops.wide(scores)
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
    return ratio(tp, tp + fp), ratio(tp, tp + fn)


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
        "tp": ratio(tp, tp + fn),
        "fn": ratio(fn, tp + fn),
        "tn": ratio(tn, tn + fp),
        "fp": ratio(fp, tn + fp),
        "dice_foreground": ratio(2 * tp, 2 * tp + fp + fn),
        "dice_background": ratio(2 * tn, 2 * tn + fp + fn),
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


def ratio(part: Numbers, whole: Numbers) -> Numbers:
    """part / whole, where 0 / 0 is NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.true_divide(part, whole)


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
    return (ratio(tp, tp + fp + fn) + ratio(tn, tn + fp + fn)) / 2
