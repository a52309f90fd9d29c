"""From a histogram of every image to scores: PxAP, F1+ and F1-, their intervals, two sets compared.

PxAP pools the pixels of the images, F1+ and F1- are averaged over them, as `metrics` defines them.
Either is a function of weighted sums over images, so that resampling needs no map again.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer

from wsol_jax import metrics, pixel_counts, significance

SCORES = {"pxap": "PxAP", "f1_foreground": "F1+", "f1_background": "F1-"}

Counts = Integer[np.ndarray, "n 2 bins"]  # `pixel_counts.histogram` of every image


def summary(counts: Counts) -> dict[str, Any]:
    """The `SCORES` with their intervals, in percent, and the rates at the best threshold."""
    pooled = counts.sum(axis=0, dtype=np.int64)
    intervals = {
        name: significance.bootstrap(statistic, len(counts))._asdict()
        for name, statistic in statistics(counts).items()
    }
    best = pixel_counts.best_threshold(pooled)
    return {**intervals, "at_best_threshold": pixel_counts.rates(pooled, best)}


def differences(first: Counts, second: Counts) -> dict[str, dict[str, float]]:
    """`SCORES` of the first maps less those of the second, of the same images in the same order."""
    measured = statistics(first), statistics(second)
    return {
        name: significance.paired(*(each[name] for each in measured), len(first))._asdict()
        for name in SCORES
    }


def statistics(counts: Counts) -> dict[str, significance.Statistic]:
    """Each of the `SCORES`, in percent, as a function of how often every image is drawn."""
    flat = counts.reshape(len(counts), -1).astype(np.float64)  # whole numbers, exact to 2^53

    def pxap(weights):
        pooled = (weights @ flat).astype(np.int64)
        return np.array([_pxap(each) for each in pooled.reshape(-1, *counts.shape[1:])])

    background, foreground = _dice(counts).T
    return dict(zip(SCORES, (pxap, _mean_of(foreground), _mean_of(background)), strict=True))


def of_each(counts: Counts) -> dict[str, Float[np.ndarray, "n"]]:
    """The share of foreground and the `SCORES` of every image, in percent; NaN if not defined."""
    sizes = counts.sum(axis=-1)
    background, foreground = _dice(counts).T
    scores = (np.array([_pxap(image) for image in counts]), foreground, background)
    share = 100 * sizes[:, 1] / sizes.sum(axis=-1)
    return {"foreground": share, **dict(zip(SCORES, scores, strict=True))}


def _mean_of(values):
    """The mean over drawn images, without those of which there is no value."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0)
    return lambda weights: pixel_counts.ratio(weights @ filled, weights @ known)


def _pxap(counts: Int[np.ndarray, "2 bins"]) -> float:
    """PxAP in percent, NaN without foreground."""
    return pixel_counts.average_precision(counts) if counts[1].any() else np.nan


def _dice(counts: Counts) -> Float[np.ndarray, "n 2"]:
    """Dice of background and foreground of every image in percent, see `metrics.image_dice`."""
    boundary = np.searchsorted(pixel_counts.edges(), metrics.BOUNDARY)
    sides = counts[..., :boundary], counts[..., boundary:]
    return 100 * metrics.image_dice(np.stack([side.sum(axis=-1) for side in sides], axis=-1))
