"""Whether a difference is more than chance: t-tests over runs, the bootstrap over images.

The papers' p are those of an unpaired two-sided t-test with 28 degrees of freedom, 15 runs against
15 (PixelCAM, tables 2, 9 and 10). The bootstrap is Efron's (1979), with percentile intervals.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

LEVEL = 0.95  # of the intervals
RESAMPLES = 2000
BLOCK = 100  # resamples at a time: of 16,000 images their weights take 13 MB

# How often each of n images was drawn in r resamples -> what is measured of each resample.
Statistic = Callable[[Int[np.ndarray, "r n"]], Float[np.ndarray, "r"]]


class Interval(NamedTuple):
    """A value with the bounds that hold the true one with probability `LEVEL`."""

    value: float
    low: float
    high: float


class TTest(NamedTuple):
    """An unpaired t-test of equal variances.

    Attributes:
      t: positive where the first mean is the higher one.
      p: two-sided.
      degrees: of freedom.
      effect: Cohen's d, the difference of the means over the pooled standard deviation.
      difference: of the means, first - second.
    """

    t: float
    p: float
    degrees: int
    effect: float
    difference: Interval


class Comparison(NamedTuple):
    """A difference, first - second, of what is measured of the same images; see `Interval`.

    Attributes:
      not_above: share of the resamples whose difference is zero or below.
      p: two-sided, 2 min(1 + #(<= 0), 1 + #(>= 0)) / (1 + resamples) and at most 1; never 0.
    """

    value: float
    low: float
    high: float
    not_above: float
    p: float


def t_test(first: Sequence[float], second: Sequence[float]) -> TTest:
    """Student's unpaired two-sided t-test of the values of two groups of runs.

    t = (m_1 - m_2) / e, e = s sqrt(1 / n_1 + 1 / n_2), with n_1 + n_2 - 2 degrees of freedom, s^2
    the pooled variance. The interval of the difference is of Student's distribution, too: it leaves
    out 0 where p < 1 - `LEVEL`. The bootstrap of a few runs would be too narrow.

    Raises:
      ValueError: a group has fewer than two values, or one that is not finite, or none varies.
    """
    groups = [np.asarray(group, np.float64) for group in (first, second)]
    if any(len(group) < 2 or not np.isfinite(group).all() for group in groups):
        raise ValueError(f"cannot test {first} against {second}; expected two finite values each")
    if not any(np.ptp(group) for group in groups):
        raise ValueError(f"cannot test {first} against {second}; expected values that vary")
    degrees = sum(len(group) for group in groups) - 2
    deviation = np.sqrt(sum(np.sum((group - group.mean()) ** 2) for group in groups) / degrees)
    difference = groups[0].mean() - groups[1].mean()
    effect = difference / deviation
    error = deviation * np.sqrt(sum(1 / len(group) for group in groups))
    reach = error * special.stdtrit(degrees, (1 + LEVEL) / 2)
    interval = Interval(*map(float, (difference, difference - reach, difference + reach)))
    t = float(difference / error)
    return TTest(t, p_value(t, degrees), degrees, float(effect), interval)


def p_value(t: float, degrees: int) -> float:
    """Probability of a t as far from 0 or farther, to either side, where nothing differs."""
    return float(2 * special.stdtr(degrees, -abs(t)))


def bootstrap(statistic: Statistic, size: int, *, seed: int = 0) -> Interval:
    """What is measured of `size` images, with its interval over resamples of the images.

    Resamples of which it is not defined (NaN) are left out. One image alone gives no interval.
    """
    resampled = _resampled(statistic, size, np.random.default_rng(seed))
    return _interval(_of_all(statistic, size), resampled)


def paired(first: Statistic, second: Statistic, size: int, *, seed: int = 0) -> Comparison:
    """The difference of two measurements of the same images, which are resampled together."""

    def difference(weights):
        return first(weights) - second(weights)

    resampled = _resampled(difference, size, np.random.default_rng(seed))
    resampled = resampled[np.isfinite(resampled)]
    below, above = np.sum(resampled <= 0), np.sum(resampled >= 0)
    share = below / len(resampled) if len(resampled) else np.nan
    p = min(1, 2 * (1 + min(below, above)) / (1 + len(resampled)))
    return Comparison(*_interval(_of_all(difference, size), resampled), float(share), float(p))


def _of_all(statistic, size):
    """The statistic of every image once."""
    return statistic(np.ones((1, size), np.int64))[0]


def _resampled(statistic, size, generator):
    """The statistic of `RESAMPLES` draws of `size` images, with replacement."""
    if size < 2:  # every draw is the same, which says nothing of other images
        return np.full(RESAMPLES, np.nan)
    share = np.full(size, 1 / size)
    blocks = [min(BLOCK, RESAMPLES - start) for start in range(0, RESAMPLES, BLOCK)]
    return np.concatenate([statistic(generator.multinomial(size, share, n)) for n in blocks])


def _interval(value, resampled):
    known = resampled[np.isfinite(resampled)]
    bounds = np.nan, np.nan
    if len(known):
        bounds = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), *map(float, bounds))
