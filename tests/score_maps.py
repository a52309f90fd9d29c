"""Random maps of scores with their truth, and NumPy's own histogram of them."""

import numpy as np

from wsol_jax import pixel_counts


def histograms(scores, truth, valid, interval=0.001):
    """Background and foreground histograms of the valid images, by NumPy in float64."""
    rows = np.asarray(valid, bool)
    scores, truth = np.asarray(scores, np.float64)[rows], truth[rows]
    return np.stack(
        [np.histogram(scores[truth == side], pixel_counts.edges(interval))[0] for side in (0, 1)]
    )


def maps(seed, shape=(4, 12, 11), *, ignored=0.1):
    """Random scores in the middle of bins, truth with ignored pixels, and one invalid image."""
    rng = np.random.default_rng(seed)
    scores = np.minimum((rng.integers(0, 1001, shape) + 0.5) / 1000, 1).astype(np.float32)
    truth = (rng.random(shape) < scores).astype(np.uint8)
    truth[rng.random(shape) < ignored] = 255
    return scores, truth, np.arange(len(scores)) != 2
