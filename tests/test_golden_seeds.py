"""Seeds against frequencies counted over draws of the released samplers.

Draws cannot be equal, distributions must be: per pixel (or block of pixels) by the difference of
two binomials, over all of them by chi-square, and for the number of seeds left after conflicts.
"""

import functools
import re

import golden_cases
import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from wsol_jax import seeds

SAMPLERS = {
    "probability_negative_salloarea_seeder": "lowest",
    "probability_seeder": "probability",
    "threshold_seeder": "threshold",
}
CASES = golden_cases.cases("07_")
CHUNK = 100
ALPHA = 1e-4  # as the recorded case recommends


def _names(section, pattern):
    """(case, name) of every entry of a section that matches."""
    found = [
        (case, name) for case in CASES for name in case.spec[section] if re.match(pattern, name)
    ]
    return pytest.mark.parametrize(("case", "name"), found, ids=lambda x: getattr(x, "name", x))


def _options(settings):
    """Keywords of `sample`, and the dilation, from a setting such as n5_p0.2_ksz3."""
    values = dict(re.findall(r"(n|p|ksz|erode)([\d.]+)", settings))
    count = int(values["n"])
    options = {"foreground": count, "background": count, "erosion": int(values.get("erode", 1))}
    if "p" in values:
        options["fraction"] = float(values["p"])
    return options, int(values.get("ksz", 1))


@functools.cache
def _counter(blocks, dilation, **options):
    """Draws once per key and counts the labelled pixels of both classes, per block and in all."""

    @golden_models.compiled
    def count(keys, cam, negative):
        maps = jnp.broadcast_to(cam, (len(keys), *cam.shape))
        only = jnp.full(len(keys), negative)
        drawn = seeds.sample(keys, maps, background_only=only, **options)
        labels = seeds.dense(drawn, cam.shape, dilation=dilation)
        marks = jnp.stack([labels == 0, labels == 1])
        tiles = marks.reshape(2, len(keys), blocks, len(cam) // blocks, blocks, -1)
        return tiles.sum(axis=(1, 3, 5)), marks.sum(axis=(2, 3))

    return count


def _counts(cam, blocks, draws, *, dilation=1, negative=False, **options):
    """Labelled pixels per block, summed over the draws, and per draw; background, foreground."""
    count = _counter(blocks, dilation, **options)
    keys = jax.random.split(jax.random.key(0), (draws // CHUNK, CHUNK))
    tiles, totals = zip(*(count(chunk, cam, negative) for chunk in keys), strict=True)
    return np.sum(np.asarray(tiles), axis=0), np.concatenate(totals, axis=1)


def _assert_same_frequencies(ours, theirs, *, seeds_per_cell, independent=True):
    """Two arrays of counts per cell, each with its number of draws."""
    (ours, our_draws), (theirs, their_draws) = ours, theirs
    share = (ours + theirs) / (our_draws + their_draws)
    variance = share * (1 - share / seeds_per_cell) * (1 / our_draws + 1 / their_draws)
    scores = (ours / our_draws - theirs / their_draws)[share > 0] / np.sqrt(variance[share > 0])
    # Four deviations for one cell, as many more for a thousand as Bonferroni asks.
    assert np.abs(scores).max() < stats.norm.isf(stats.norm.sf(4) / scores.size)
    if independent:
        assert stats.chi2.sf(np.sum(scores**2), scores.size - 1) > ALPHA


def _assert_same_totals(ours, theirs):
    """Histograms of the labelled pixels per draw; rare bins are joined with their neighbours."""
    bins = np.arange(max(ours.max(), *theirs) + 1)
    table = np.asarray([np.bincount(ours, minlength=len(bins)), [theirs.get(b, 0) for b in bins]])
    groups, filled = [], np.zeros(2, int)
    for column in table.T:
        filled = filled + column
        if filled.sum() >= 20:
            groups.append(filled)
            filled = np.zeros(2, int)
    groups = [*groups[:-1], groups[-1] + filled]
    assert len(groups) == 1 or stats.chi2_contingency(np.asarray(groups).T).pvalue > ALPHA


@_names("invariants", r"\w+_seeder/n\d+")
def test_frequencies_and_totals(case, name):
    seeder, settings, image = name.split("/")
    cam, recorded = case.arrays[f"in/{image}"], case.spec["n_draws"]
    frequencies = [case.arrays[f"{name}/freq_{kind}"] for kind in ("bg", "fg")]
    blocks, draws = len(frequencies[0]), 2000 if len(cam) < 100 else 600
    options, dilation = _options(settings)
    options["sampler"] = SAMPLERS[seeder]
    tiles, totals = _counts(cam, blocks, draws, dilation=dilation, **options)
    for ours, theirs in zip(tiles, frequencies, strict=True):
        _assert_same_frequencies(
            (ours, draws),
            (theirs * recorded, recorded),
            seeds_per_cell=1 if blocks == len(cam) else options["foreground"],
            independent=dilation == 1,
        )
    for ours, kind in zip(totals, ("bg", "fg"), strict=True):
        histogram = case.spec["invariants"][name][f"{kind}_count_hist"]
        _assert_same_totals(ours, {int(count): draws for count, draws in histogram.items()})


@_names("tensors", r"theory/.*/fg_first_draw_prob")
def test_first_foreground_draw(case, name):
    cam = case.arrays[f"in/{name.split('/')[1]}"]
    chance = (cam + 1e-6) / np.sum(cam + 1e-6)
    np.testing.assert_allclose(chance[case.strides(name)], case.arrays[name], rtol=1e-5)
    observed = _counts(cam, 14, 600, foreground=1, background=0)[0][1]
    expected = chance.astype(float).reshape(14, len(cam) // 14, 14, -1).sum(axis=(1, 3))
    expected *= observed.sum() / expected.sum()
    assert stats.chisquare(observed.ravel(), expected.ravel()).pvalue > ALPHA


def _unpacked(packed, shape):
    return np.unpackbits(packed, count=np.prod(shape)).reshape(shape).astype(bool)


@_names("tensors", r"otsu/")
def test_otsu_region_is_the_recorded_one(case, name):
    cam = case.arrays[f"in/{name.split('/')[1]}"]
    region = seeds.otsu_region(jnp.asarray(cam)[None], erosion=11 if "eroded" in name else 1)[0]
    np.testing.assert_array_equal(region, _unpacked(case.arrays[name], cam.shape))


@_names("tensors", r"threshold_seeder/.*/bg_pool")
def test_lowest_area_is_the_recorded_one(case, name):
    cam = case.arrays[f"in/{name.split('/')[1]}"]
    area = np.asarray(seeds.lowest_area(jnp.asarray(cam)[None], 0.2)[0])
    recorded = _unpacked(case.arrays[name], cam.shape)
    assert np.all(recorded[area == 1])
    assert np.all(area[recorded] > 0)  # less than 1 where pixels tie at the limit
    np.testing.assert_allclose(area.sum(), recorded.sum(), rtol=1e-6)


@_names("tensors", r"neg_samples_partial/class\d/freq_bg")
def test_images_without_object(case, name):
    cam, recorded = case.arrays["in/cam28"], case.spec["n_draws"]
    options, _ = _options("n5_p0.2")
    negative = "class0" in name
    tiles, totals = _counts(cam, 28, 2000, negative=negative, sampler="lowest", **options)
    theirs = case.arrays[name] * recorded, recorded
    _assert_same_frequencies((tiles[0], 2000), theirs, seeds_per_cell=1)
    invariants = case.spec["invariants"][name.removesuffix("/freq_bg")]
    for ours, kind in zip(totals, ("bg", "fg"), strict=True):
        assert set(ours) == set(invariants[f"{kind}_counts"])


def _special(name, shape):
    cam = np.zeros(shape, np.float32)
    match name:
        case "constant_0.5":
            cam[:] = 0.5
        case "one_hot":
            cam[shape[0] // 2, shape[1] // 2] = 1
    return cam


@_names("special_cams", r"")
def test_special_cams(case, name):
    kind, seeder, settings = name.split("/")
    cam = _special(kind, case.arrays["in/cam28"].shape)
    options, _ = _options(settings)
    options["sampler"] = SAMPLERS[seeder]
    tiles, totals = _counts(cam, 28, 400, **options)
    recorded = case.spec["special_cams"][name]
    for ours, kind in zip(totals, ("bg", "fg"), strict=True):
        assert ours.max() == max(recorded[f"{kind}_counts"])
        assert ours.min() >= min(recorded[f"{kind}_counts"]) - 1
    if recorded["fg_freq_at_argmax"] == 1:
        assert tiles[1][cam == 1] == 400
