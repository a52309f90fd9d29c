"""Metrics against the released evaluator's recorded numbers.

Its thresholds run downwards while the edges run upwards, so what it calls the best threshold is
the mirror image of the one applied: entry i of its curves belongs to edge `bins - 1 - i`.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_cases import cases

from wsol_jax import metrics, pixel_counts

EVALUATIONS = [(case, name) for case in cases("08_") for name in case.spec["results"]]
# The released evaluator takes float64 only; we take every precision.
EVALUATIONS = [(case, name) for case, name in EVALUATIONS if "float32_dtype" not in name]
NAMES = {
    "True positive": "tp",
    "False negative": "fn",
    "True negative": "tn",
    "False positive": "fp",
    "Dice foreground": "dice_foreground",
    "Dice background": "dice_background",
    "MIOU": "miou",
}


def intervals(case):
    return [float(name.removeprefix("all6_interval")) for name in _names(case, "all6_interval")]


def evaluation(case, name):
    """Scores, truth and bin width of a recorded evaluation, from its name."""
    scores, truth = case.arrays["in/scoremaps_u16"] / 65535, case.arrays["masks_resized_224"]
    if name.startswith("all6"):
        found = re.search(r"interval([\d.]+)", name)
        truth = _with_ignored(case, truth) if "ignore" in name else truth
        return scores, truth, float(found[1]) if found else 0.001
    if "maps_0_and_5" in name:
        return scores[[0, 5]], truth[[0, 5]], 0.001
    found = re.search(r"(?:single|_mask)(\d)$", name)
    image = slice(int(found[1]), int(found[1]) + 1) if found else slice(0, 1)
    scores, truth = scores[image], truth[image]
    if found := re.search(r"const_([\d.]+)", name):
        scores = np.full(truth.shape, float(found[1]))
    elif found := re.search(r"two_level_([\d.]+)_([\d.]+)", name):
        scores = np.where(truth == 1, float(found[2]), float(found[1]))
    elif "perfect" in name:
        scores = truth.astype(float)
    elif "inverted" in name:
        scores = 1.0 - truth
    elif "invalid" in name:
        scores = scores.copy()
        scores[0, 0, 0] = {"nan": np.nan, "gt_1": 1.0001, "lt_0": -1e-6}[name[13:]]
    truth = np.ones_like(truth) if "all_foreground" in name else truth
    truth = np.zeros_like(truth) if "empty_mask_only" in name else truth
    return scores, truth, 0.001


def _names(case, prefix):
    return [name for name in case.spec["results"] if name.startswith(prefix)]


def _with_ignored(case, truth):
    """The recorded rectangle of each mask, resized as OpenCV does, ignored on background."""
    truth = truth.copy()
    for image, (height, width) in enumerate(case.spec["mask_sizes_hw"]):
        rows, columns = (np.floor(np.arange(224) * (1 / (224 / size))) for size in (height, width))
        rows = (rows >= height // 4) & (rows < height // 2)
        columns = (columns >= width // 4) & (columns < width // 2)
        truth[image][rows[:, None] & columns & (truth[image] == 0)] = 255
    return truth


@functools.partial(jax.jit, static_argnames="interval")
def _counts(scores, truth, interval):
    return pixel_counts.histogram(scores, truth, jnp.ones(len(scores), bool), interval=interval)


def counts_of(scores, truth, interval, dtype=np.float64):
    with jax.enable_x64(dtype == np.float64):
        return np.asarray(_counts(jnp.asarray(scores.astype(dtype)), jnp.asarray(truth), interval))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("case", "interval"), [(case, width) for case in cases("08_") for width in intervals(case)]
)
def test_histograms_and_curves(case, interval, dtype):
    recorded = {
        name: case.arrays[f"all6_interval{interval}/{name}"]
        for name in ("edges", "hist_fg", "hist_bg", "precision", "recall")
    }
    counts = counts_of(*evaluation(case, f"all6_interval{interval}"), dtype)
    precision, recall = pixel_counts.curve(counts)
    np.testing.assert_array_equal(pixel_counts.edges(interval), recorded["edges"])
    np.testing.assert_array_equal(counts, [recorded["hist_bg"], recorded["hist_fg"]])
    np.testing.assert_allclose(precision, recorded["precision"], atol=1e-9)
    np.testing.assert_allclose(recall, recorded["recall"], atol=1e-9)


@pytest.mark.parametrize(
    ("case", "interval"), [(case, width) for case in cases("08_") for width in intervals(case)]
)
def test_rates_along_the_curve(case, interval):
    counts = counts_of(*evaluation(case, f"all6_interval{interval}"))
    found = [pixel_counts.rates(counts, edge) for edge in pixel_counts.edges(interval)[-2::-1]]
    scales = {"tp": ("tp_x100", 1), "fp": ("fp_x100", 1), "miou": ("miou_x100", 1)}
    scales |= {"dice_foreground": ("dice_fg", 100), "dice_background": ("dice_bg", 100)}
    for name, (recorded, scale) in scales.items():
        expected = scale * case.arrays[f"all6_interval{interval}/{recorded}"]
        np.testing.assert_allclose([r[name] for r in found], expected, atol=1e-9)


@pytest.mark.parametrize(("case", "name"), EVALUATIONS)
def test_evaluation(case, name):
    expected = case.spec["results"][name]
    scores, truth, interval = evaluation(case, name)
    if "raises" in expected:
        with jax.enable_x64(True):
            batch = jnp.asarray(scores), jnp.asarray(truth), jnp.ones(len(scores), bool)
            metric = metrics.PxAP.from_model_output(*batch)
        with pytest.raises(ValueError, match=r"cannot be counted|0 foreground"):
            metric.compute()
        return
    counts, edges = counts_of(scores, truth, interval), pixel_counts.edges(interval)
    mirrored = dict(zip(edges[:-1], edges[-2::-1], strict=True))
    assert pixel_counts.average_precision(counts) == pytest.approx(expected["PXAP"], abs=1e-9)

    # A threshold taken over from validation is mirrored as well before it is applied.
    given = re.search(r"best_valid_tau_([\d.]+)", name)
    threshold = mirrored[float(given[1])] if given else pixel_counts.best_threshold(counts)
    assert mirrored[threshold] == pytest.approx(expected["Best tau"], abs=1e-12)
    assert threshold == pytest.approx(expected["_threshold_actually_applied_at_idx"], abs=1e-12)
    _check_rates(pixel_counts.rates(counts, threshold), expected, "")

    # So is what the released code calls 0.5: its rates are those at 0.501.
    _check_rates(pixel_counts.rates(counts, mirrored[0.5]), expected, " 0.5")


def _check_rates(found, expected, suffix):
    for theirs, ours in NAMES.items():
        if theirs + suffix in expected:
            value = expected[theirs + suffix]
            assert found[ours] == pytest.approx(value, abs=1e-9, nan_ok=True), theirs


@pytest.mark.parametrize("case", cases("09_maxmin_primitives"), ids=lambda c: c.name)
def test_f1_of_foreground_and_background(case):
    """Dice at one half of every image, and its mean."""
    scores, truth = (case.arrays[f"f1/{name}"] for name in ("pred_maps", "true_masks"))
    recorded = case.spec["results"]["f1/th0.5"]
    arrays = (jnp.asarray(scores), jnp.asarray(truth, jnp.uint8), jnp.ones(len(truth), bool))
    arrays += (jnp.zeros(len(truth), int),)
    metric = metrics.Dice.from_model_output(*arrays)
    each = metrics.image_dice(np.asarray(metric.counts))
    np.testing.assert_allclose(each[:, 1], recorded["F1+_per_image"], atol=1e-6)
    np.testing.assert_allclose(each[:, 0], recorded["F1-_per_image"], atol=1e-6)
    summary = metric.summary()
    assert summary["f1_foreground"] == pytest.approx(100 * recorded["F1+"], abs=1e-4)
    assert summary["f1_background"] == pytest.approx(100 * recorded["F1-"], abs=1e-4)
