"""Histograms of scores, and the rates read from them, against NumPy on every pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from score_maps import histograms, maps

from wsol_jax import pixel_counts

EDGES = pixel_counts.edges()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, jnp.bfloat16])
@pytest.mark.parametrize("interval", [0.001, 0.004, 1 / 49])
def test_counts_equal_numpy_histogram_on_and_beside_every_edge(dtype, interval):
    rng = np.random.default_rng(0)
    grid = pixel_counts.edges(interval)[:-2].astype(dtype)
    step = jnp.finfo(dtype).eps * grid
    beside = [(grid + step).astype(dtype), (grid - step).astype(dtype), rng.random(3000)]
    scores = np.clip(np.concatenate([grid, *beside]).astype(dtype), 0, 1)[None, None]
    truth = rng.integers(0, 2, scores.shape).astype(np.uint8)
    with jax.enable_x64(dtype == np.float64):
        counts = pixel_counts.histogram(
            jnp.asarray(scores), jnp.asarray(truth), jnp.array([True]), interval=interval
        )
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, histograms(scores, truth, [True], interval))


@pytest.mark.parametrize("interval", [0.0, 0.003, 2.0, np.nan])
def test_interval_must_divide_one(interval):
    with pytest.raises(ValueError, match="expected 1/n"):
        pixel_counts.edges(interval)


@pytest.mark.parametrize("threshold", [2.0, 1.0, 0.999, 0.501, 0.3, 0.001, 0.0])
def test_rates_equal_those_of_the_binarised_map(threshold):
    scores, truth, valid = maps(8)
    result = pixel_counts.rates(histograms(scores, truth, valid), threshold)
    used = (truth != 255) & valid[:, None, None]
    found, real = scores[used] >= threshold, truth[used] == 1
    expected = {
        "threshold": threshold,
        "tp": 100 * np.mean(found[real]),
        "fn": 100 * np.mean(~found[real]),
        "tn": 100 * np.mean(~found[~real]),
        "fp": 100 * np.mean(found[~real]),
        "dice_foreground": 200 * np.sum(found & real) / (found.sum() + real.sum()),
        "dice_background": 200 * np.sum(~found & ~real) / (np.sum(~found) + np.sum(~real)),
        "miou": 50 * np.sum(found & real) / np.sum(found | real)
        + 50 * np.sum(~found & ~real) / np.sum(~found | ~real),
    }
    assert result == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("threshold", [-0.001, 0.0005, 1.5, 3.0, 50.0, np.nan])
def test_rates_are_known_at_the_edges_only(threshold):
    with pytest.raises(ValueError, match=r"expected one of 0\.0, 0\.001, \.\.\., 1\.0, 2\.0"):
        pixel_counts.rates(np.ones((2, 1002), int), threshold)


@pytest.mark.parametrize("seed", range(3))
def test_best_threshold_maximises_the_mean_iou(seed):
    scores, truth, valid = maps(seed)
    counts = histograms(scores, truth, valid)
    values = {t: pixel_counts.rates(counts, t)["miou"] for t in EDGES[-2::-1]}
    assert pixel_counts.best_threshold(counts) == max(values, key=values.get)


def test_curve_ends_where_everything_is_foreground():
    scores, truth, _ = maps(9, ignored=0)
    precision, recall = pixel_counts.curve(histograms(scores, truth, np.ones(len(truth))))
    assert np.isnan(precision[0])
    assert recall[0] == 0
    assert recall[-1] == 1
    assert precision[-1] == pytest.approx(truth.mean())
    assert np.all(np.diff(recall) >= 0)


def test_rates_of_a_class_without_pixels_are_undefined():
    counts = np.zeros((2, 1002), int)
    counts[1, 400] = 9
    result = pixel_counts.rates(counts, pixel_counts.best_threshold(counts))
    assert result["tp"] == result["dice_foreground"] == 100
    assert np.isnan([result[name] for name in ("tn", "fp", "dice_background", "miou")]).all()
