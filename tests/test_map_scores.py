"""Scores of resampled images against those of the maps themselves, repeated."""

import numpy as np
import pytest
from score_maps import histograms, maps
from sklearn.metrics import average_precision_score
from test_metrics import dice, pxap

from wsol_jax import map_scores, metrics, significance


def counted(scores, truth):
    """A histogram of each image, by NumPy."""
    return np.stack([histograms(s[None], t[None], [1]) for s, t in zip(scores, truth, strict=True)])


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(significance, "RESAMPLES", 100)


def test_a_resample_scores_as_its_images_do():
    scores, truth, _ = maps(0, (6, 9, 8))
    truth[1][truth[1] == 1] = 0
    truth[4][truth[4] == 0] = 1
    measured = map_scores.statistics(counted(scores, truth))
    weights = np.random.default_rng(0).multinomial(6, [1 / 6] * 6, 4)
    for row in weights:
        drawn = np.repeat(np.arange(6), row)
        summary = dice(scores[drawn], truth[drawn]).summary()
        expected = {
            "pxap": pxap(scores[drawn], truth[drawn]).compute(),
            **{name: summary[name] for name in ("f1_foreground", "f1_background")},
        }
        found = {name: statistic(row[None])[0] for name, statistic in measured.items()}
        assert found == pytest.approx(expected, rel=1e-12)


def test_an_image_without_foreground_has_no_pxap_of_its_own():
    scores, truth, _ = maps(1, (3, 9, 8))
    truth[1] = 0
    each = map_scores.of_each(counted(scores, truth))
    used = truth != 255
    np.testing.assert_allclose(
        each["foreground"], [100 * np.mean(t[u] == 1) for t, u in zip(truth, used, strict=True)]
    )
    assert np.isnan(each["pxap"]).tolist() == [False, True, False]
    assert np.isnan(each["f1_foreground"]).tolist() == [False, True, False]
    for i in (0, 2):
        expected = 100 * average_precision_score(truth[i][used[i]], scores[i][used[i]])
        assert each["pxap"][i] == pytest.approx(expected)


def test_summary_is_that_of_all_images_between_its_bounds():
    scores, truth, _ = maps(2, (8, 9, 8))
    found = map_scores.summary(counted(scores, truth))
    whole = metrics.PxAP.empty().merge(pxap(scores, truth))
    assert found["pxap"]["value"] == pytest.approx(whole.compute(), rel=1e-12)
    assert found["at_best_threshold"] == whole.summary(None)["at_best_test_threshold"]
    for name in map_scores.SCORES:
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]


def test_better_maps_lead_in_every_resample():
    scores, truth, _ = maps(3, (8, 9, 8))
    better = np.where(truth == 1, 1, scores / 2)
    found = map_scores.differences(counted(better, truth), counted(scores, truth))
    for name in map_scores.SCORES:
        assert found[name]["low"] > 0 == found[name]["not_above"]
        assert found[name]["p"] == 2 / 101
    same = map_scores.differences(*2 * [counted(scores, truth)])
    assert [same[name]["value"] for name in map_scores.SCORES] == [0, 0, 0]
    assert [same[name]["p"] for name in map_scores.SCORES] == [1, 1, 1]
