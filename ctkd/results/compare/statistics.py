"""Means over seeds, and the paired difference of two methods that were run with the same seeds.

Runs that share a seed share initial weights, order and augmentation. The difference of two methods
is therefore taken seed by seed, and what the seed does to both of them cancels. The tests are
scipy's.
"""

import math
import warnings
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev, variance
from typing import Any

Interval = tuple[float, float]

LEVEL = 0.05  # two-sided
POWER = 0.8
MAX_SEEDS = 10_000  # a larger number of seeds is of no practical use
ROUNDING = 1e-12  # a standard deviation below this share of the values is rounding


@dataclass(frozen=True)
class MeanStd:
    """Mean and standard deviation of n values (n − 1 in its denominator; None for one value)."""

    n: int
    mean: float
    std: float | None


@dataclass(frozen=True)
class Comparison:
    """The difference a − b of two methods; None where there are too few values for a number.

    Attributes:
        seeds: the seeds that both methods have, ascending; `n` is their number.
        differences: a − b for each of these seeds.
        welch_difference: mean of a − mean of b, each over all of its seeds.
        welch_interval: its 95 % interval without pairing, by Welch's t.
        difference: mean of a − b over the shared seeds.
        interval: its 95 % t interval. None for n < 2, and where all differences are equal: a
            variance of zero means that there are too few values, not that they are certain.
        p_value: of the two-sided paired t-test; None in the same cases.
        paired_variance: variance of a − b over the shared seeds.
        unpaired_variance: var(a) + var(b) over the shared seeds: the variance of a − b if the
            seeds had nothing in common. Pairing helps where `paired_variance` is smaller.
        seeds_needed: seeds with which the paired t-test would find this difference (level 0.05,
            power 0.8), if it and its variance were the true ones. None above 10,000, and for fewer
            than three shared seeds, whose variance is too uncertain.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    welch_difference: float | None
    welch_interval: Interval | None
    difference: float | None = None
    interval: Interval | None = None
    p_value: float | None = None
    paired_variance: float | None = None
    unpaired_variance: float | None = None
    seeds_needed: int | None = None

    @property
    def n(self) -> int:
        """The number of shared seeds."""
        return len(self.seeds)

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and zero is outside."""
        return self.interval is not None and not self.interval[0] <= 0.0 <= self.interval[1]


def mean_std(values: Sequence[float]) -> MeanStd:
    """Mean ± standard deviation of at least one value."""
    return MeanStd(len(values), fmean(values), stdev(values) if len(values) > 1 else None)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Comparison:
    """Compares two methods by their values per seed: the paired t-test, and Welch's interval."""
    seeds = tuple(sorted(a.keys() & b.keys()))
    ours, theirs = [a[seed] for seed in seeds], [b[seed] for seed in seeds]
    differences = tuple(x - y for x, y in zip(ours, theirs, strict=True))
    found: dict[str, Any] = {"difference": fmean(differences) if seeds else None}
    if len(seeds) >= 2:
        spread = stdev(differences)
        found["paired_variance"] = variance(differences)
        found["unpaired_variance"] = variance(ours) + variance(theirs)
        if spread > ROUNDING * max(map(abs, ours + theirs)):
            from scipy.stats import ttest_rel

            test = ttest_rel(ours, theirs)
            found |= {"interval": _interval(test), "p_value": float(test.pvalue)}
            if len(seeds) >= 3:
                found["seeds_needed"] = seeds_needed(found["difference"], spread)
    return Comparison(seeds, differences, *_welch(list(a.values()), list(b.values())), **found)


def seeds_needed(difference: float, spread: float) -> int | None:
    """The least n whose paired t-test finds `difference` with power 0.8 at the level 0.05.

    `spread` is the standard deviation of the paired differences. None if 10,000 seeds are too few.
    """
    effect = abs(difference) / spread
    numbers = range(2, MAX_SEEDS + 1)
    index = bisect_left(numbers, POWER, key=lambda n: power(effect, n))
    return numbers[index] if index < len(numbers) else None


def power(effect: float, n: int) -> float:
    """Power of the two-sided paired t-test at the level 0.05.

    `effect` is the mean of the differences in units of their standard deviation. With a true
    difference, t follows a noncentral t distribution of n − 1 degrees of freedom and noncentrality
    √n·effect; the power is its mass beyond the two critical values.
    """
    from scipy.stats import nct, t

    critical, noncentrality = t.ppf(1 - LEVEL / 2, n - 1), effect * math.sqrt(n)
    upper = float(nct.sf(critical, n - 1, noncentrality))
    lower = float(nct.cdf(-critical, n - 1, noncentrality))  # nan where it underflows
    return upper + (lower if math.isfinite(lower) else 0.0)


def _welch(a: Sequence[float], b: Sequence[float]) -> tuple[float | None, Interval | None]:
    """Mean of a − mean of b with Welch's 95 % interval (None below two values, or unvaried)."""
    if not a or not b:
        return None, None
    difference = fmean(a) - fmean(b)
    if min(len(a), len(b)) < 2 or max(stdev(a), stdev(b)) <= ROUNDING * max(map(abs, [*a, *b])):
        return difference, None
    from scipy.stats import ttest_ind

    with warnings.catch_warnings():  # of equal values in one of the two, which are no problem
        warnings.simplefilter("ignore", RuntimeWarning)
        return difference, _interval(ttest_ind(a, b, equal_var=False))


def _interval(test: Any) -> Interval:
    """The confidence interval of scipy's test."""
    low, high = test.confidence_interval(1 - LEVEL)
    return float(low), float(high)


def detectable_difference(spread: float, n: int) -> float | None:
    """The difference that the paired t-test finds with power 0.8 at the level 0.05.

    `spread` is the standard deviation of the n paired differences. None for n < 3.
    """
    if n < 3:
        return None
    from scipy.optimize import brentq

    effect = brentq(lambda effect: power(effect, n) - POWER, 1e-6, 100.0)
    return float(effect) * spread


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the order given.

    The k-th smallest of m is multiplied by m − k + 1; none is smaller than one before it, or above
    1. Rejecting where the result is below 0.05 keeps the chance of any false rejection below 0.05.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> tuple[int, int, float]:
    """McNemar's exact test of two classifiers on the same images, by whether each is right.

    Returns:
        The images that a alone has right, those that b alone has right, and the two-sided p.

    Raises:
        ValueError: they are not about the same number of images.
    """
    from scipy.stats import binomtest

    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    apart = only_a + only_b
    return only_a, only_b, float(binomtest(only_a, apart).pvalue) if apart else 1.0
