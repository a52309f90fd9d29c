"""Tests of significance against SciPy's, the papers' p, and cases whose answer is known."""

import math

import numpy as np
import pytest
from scipy import stats

from wsol_jax import published, significance

PRINTED = {
    (table, name, data): row[2 * i : 2 * i + 2]
    for table in (2, 9, 10)
    for name, row in getattr(published.pixelcam, f"TABLE_{table}").rows.items()
    for i, data in enumerate(("glas", "camelyon16"))
}
OTHERWISE = {(2, "deep_mil", "camelyon16"), (9, "grad_cam_pp", "camelyon16")}


def mean_of(values):
    """The mean as a function of how often each value is drawn."""
    return lambda weights: weights @ values / weights.sum(axis=1)


def rounded_alike(t, p, degrees):
    """Whether some t that prints as `t` has some p that prints as `p`, of two digits."""
    half = 0.5 * 10 ** (math.floor(math.log10(p)) - 1)
    low, high = (significance.p_value(t + error, degrees) for error in (0.05, -0.05))
    return low <= p + half and high >= p - half


def test_the_papers_p_follow_from_their_t_at_28_degrees_of_freedom_alone():
    fits = {d: {k for k, (t, p) in PRINTED.items() if rounded_alike(t, p, d)} for d in range(2, 60)}
    assert len(PRINTED) == 20
    assert set(PRINTED) - fits[28] == OTHERWISE
    assert max(len(names) for degrees, names in fits.items() if degrees != 28) <= 1


@pytest.mark.parametrize("name", sorted(OTHERWISE))
def test_two_of_the_papers_p_are_near_but_not_to_the_digit(name):
    t, p = PRINTED[name]
    assert significance.p_value(t, 28) == pytest.approx(p, rel=0.25)


@pytest.mark.parametrize(("first", "second"), [(15, 15), (2, 2), (3, 9)])
def test_t_test_equals_scipys(first, second):
    random = np.random.default_rng(first)
    groups = random.normal(80, 3, first).tolist(), random.normal(70, 4, second).tolist()
    found, expected = significance.t_test(*groups), stats.ttest_ind(*groups)
    assert found.degrees == first + second - 2 == expected.df
    assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)
    variances = [(len(group) - 1) * np.var(group, ddof=1) for group in groups]
    deviation = math.sqrt(sum(variances) / found.degrees)
    assert found.effect == pytest.approx(found.difference.value / deviation)
    assert found.difference.value == pytest.approx(np.mean(groups[0]) - np.mean(groups[1]))
    swapped = significance.t_test(*groups[::-1])
    assert (swapped.t, swapped.p, swapped.effect) == (-found.t, found.p, -found.effect)


@pytest.mark.parametrize(("first", "second"), [(15, 15), (2, 2), (3, 9)])
def test_interval_of_the_difference_of_means_is_scipys(first, second):
    random = np.random.default_rng(second)
    groups = random.normal(80, 3, first).tolist(), random.normal(75, 4, second).tolist()
    found = significance.t_test(*groups)
    expected = stats.ttest_ind(*groups).confidence_interval(significance.LEVEL)
    interval = found.difference.low, found.difference.high
    assert interval == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert (interval[0] <= 0 <= interval[1]) == (found.p >= 1 - significance.LEVEL)


@pytest.mark.parametrize(
    ("first", "message"),
    [([1.0], "two finite values"), ([1.0, np.nan], "two finite values"), ([2.0, 2.0], "vary")],
)
def test_t_test_refuses_what_has_no_t(first, message):
    with pytest.raises(ValueError, match=message):
        significance.t_test(first, [3.0, 3.0])


def test_equal_values_do_not_vary_though_their_mean_is_rounded():
    """(97.1 + 97.1 + 97.1) / 3 is not 97.1."""
    assert np.mean([97.1] * 3) != 97.1
    with pytest.raises(ValueError, match="vary"):
        significance.t_test([97.3] * 3, [97.1] * 3)


def test_interval_covers_the_mean_as_often_as_it_says(monkeypatch):
    """And as often as the interval of a normal distribution, from the same samples, does."""
    monkeypatch.setattr(significance, "RESAMPLES", 400)
    random = np.random.default_rng(0)
    covered = {"bootstrap": 0, "normal": 0}
    for seed in range(400):
        values = random.normal(5, 2, 50)
        found = significance.bootstrap(mean_of(values), 50, seed=seed)
        covered["bootstrap"] += found.low <= 5 <= found.high
        covered["normal"] += abs(values.mean() - 5) <= 1.96 * values.std() / math.sqrt(50)
    shares = {name: count / 400 for name, count in covered.items()}
    assert shares["bootstrap"] == pytest.approx(significance.LEVEL, abs=0.045)  # 3 deviations
    assert shares["bootstrap"] == pytest.approx(shares["normal"], abs=0.025)


def test_interval_leaves_out_resamples_without_a_value():
    values = np.arange(10.0)

    def mean_with_the_first(weights):
        return np.where(weights[:, 0] > 0, mean_of(values)(weights), np.nan)

    found = significance.bootstrap(mean_with_the_first, 10)
    whole = significance.bootstrap(mean_of(values), 10)
    assert found.value == whole.value == 4.5
    assert found.low < whole.low  # the first is the lowest
    assert found.high < whole.high


def test_one_image_gives_no_interval():
    found = significance.bootstrap(mean_of(np.array([3.0])), 1)
    assert found.value == 3
    assert np.isnan([found.low, found.high]).all()
    compared = significance.paired(*2 * [mean_of(np.array([3.0]))], 1)
    assert compared.p == 1
    assert np.isnan(compared.not_above)


def test_what_all_images_share_is_certain_when_they_are_paired():
    values = np.random.default_rng(0).normal(0, 100, 30)
    lead, lag = (
        significance.paired(mean_of(values + shift), mean_of(values), 30) for shift in (1, -1)
    )
    assert (lead.value, lead.low, lead.high) == pytest.approx((1, 1, 1))
    assert (lead.not_above, lag.not_above) == (0, 1)
    assert lead.p == lag.p == 2 / (1 + significance.RESAMPLES)
    nothing = significance.paired(mean_of(values), mean_of(values), 30)
    assert nothing == (0, 0, 0, 1, 1)


def test_p_of_a_paired_comparison_is_that_of_scipys_paired_test():
    random = np.random.default_rng(0)
    first = random.normal(0, 5, 60)
    for shift in (0.1, 0.5, 0.8):
        second = first + random.normal(shift, 2, 60)
        found = significance.paired(mean_of(first), mean_of(second), 60)
        assert found.p == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.03)
        assert found.value == pytest.approx(first.mean() - second.mean())
        assert found.low < found.value < found.high
        assert found.p == pytest.approx(2 * min(found.not_above, 1 - found.not_above), abs=0.002)
