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
        difference: mean of a − b over these seeds.
        interval: its 95 % t interval. None for n < 2, and where all differences are equal: a
            variance of zero means that there are too few values, not that they are certain.
        p_value: of the two-sided paired t-test; None in the same cases.
        welch_difference: mean of a − mean of b, each over all of its seeds.
        welch_interval: its 95 % interval without pairing, by Welch's t.
        paired_variance: variance of a − b over the shared seeds.
        unpaired_variance: var(a) + var(b) over the shared seeds: the variance of a − b if the
            seeds had nothing in common. Pairing helps where `paired_variance` is smaller.
        seeds_needed: seeds with which the paired t-test would find this difference (level 0.05,
            power 0.8), if it and its variance were the true ones. None above 10,000, and for fewer
            than three shared seeds, whose variance is too uncertain.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    difference: float | None
    interval: Interval | None
    p_value: float | None
    welch_difference: float | None
    welch_interval: Interval | None
    paired_variance: float | None
    unpaired_variance: float | None
    seeds_needed: int | None

    @property
    def n(self) -> int:
        """The number of shared seeds."""
        return len(self.seeds)


def mean_std(values: Sequence[float]) -> MeanStd:
    """Mean ± standard deviation of at least one value."""
    return MeanStd(len(values), fmean(values), stdev(values) if len(values) > 1 else None)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Comparison:
    """Compares two methods by their values per seed: the paired t-test, and Welch's interval."""
    seeds = tuple(sorted(a.keys() & b.keys()))
    ours, theirs = [a[seed] for seed in seeds], [b[seed] for seed in seeds]
    differences = tuple(x - y for x, y in zip(ours, theirs, strict=True))
    difference = fmean(differences) if seeds else None
    interval = p_value = paired_variance = unpaired_variance = needed = None
    if difference is not None and len(seeds) >= 2:
        paired_variance = variance(differences)
        unpaired_variance = variance(ours) + variance(theirs)
        spread = math.sqrt(paired_variance)
        if spread > ROUNDING * max(map(abs, ours + theirs)):
            from scipy.stats import ttest_rel

            test = ttest_rel(ours, theirs)
            interval, p_value = _interval(test), float(test.pvalue)
            needed = seeds_needed(difference, spread) if len(seeds) >= 3 else None
    welch_difference, welch_interval = _welch(list(a.values()), list(b.values()))
    return Comparison(
        seeds=seeds,
        differences=differences,
        difference=difference,
        interval=interval,
        p_value=p_value,
        welch_difference=welch_difference,
        welch_interval=welch_interval,
        paired_variance=paired_variance,
        unpaired_variance=unpaired_variance,
        seeds_needed=needed,
    )


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
