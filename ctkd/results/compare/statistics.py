"""Means over seeds, and the paired difference of two methods that were run with the same seeds.

Runs that share a seed share initial weights, order and augmentation, so the difference of two
methods is taken seed by seed: what the seed does to both of them cancels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev, variance

Interval = tuple[float, float]

LEVEL = 0.05  # two-sided
POWER = 0.8
MAX_SEEDS = 10_000  # beyond it, no number of seeds is of any practical use


@dataclass(frozen=True)
class MeanStd:
    """Mean and standard deviation of n values (n − 1 in its denominator; None for one value)."""

    n: int
    mean: float
    std: float | None


@dataclass(frozen=True)
class Comparison:
    """How much higher `a` is than `b`; None wherever the values do not permit a statement.

    Attributes:
        seeds: those that both have, ascending; `n` is their number.
        differences: a − b of each of them.
        difference: mean of a − b over these seeds.
        interval: its 95 % t interval. None for n < 2, and where all differences are equal: a
            variance of zero says that there are too few values, not that they are certain.
        p_value: of the two-sided paired t-test; None in the same cases.
        welch_difference: mean of a − mean of b, each over all of its seeds, shared or not.
        welch_interval: its 95 % interval without pairing, by Welch's t.
        paired_variance: variance of a − b over the shared seeds.
        unpaired_variance: var(a) + var(b) over the shared seeds: what the former would be
            if the seeds had nothing in common. Pairing helps as far as the former is smaller.
        seeds_needed: seeds with which the paired t-test would find this difference (level 0.05,
            power 0.8), if it and its variance were the true ones; None beyond 10,000, and below
            three seeds, whose variance says next to nothing.
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
    """Compares two methods by their values per seed: the paired t-test, and Welch's interval.

    With the differences d over n shared seeds, of mean m and standard deviation s:
    t = m / (s/√n) with n − 1 degrees of freedom.
    """
    seeds = tuple(sorted(a.keys() & b.keys()))
    differences = [a[seed] - b[seed] for seed in seeds]
    difference = fmean(differences) if seeds else None
    interval = p_value = paired_variance = unpaired_variance = needed = None
    if difference is not None and len(seeds) >= 2:
        paired_variance = variance(differences)
        unpaired_variance = variance([a[s] for s in seeds]) + variance([b[s] for s in seeds])
        spread = _real_spread(differences, largest=max(abs(a[s]) + abs(b[s]) for s in seeds))
        if spread is not None:
            interval, p_value = _t_interval(difference, spread / len(seeds) ** 0.5, len(seeds) - 1)
            needed = seeds_needed(difference, spread) if len(seeds) >= 3 else None
    welch_difference, welch_interval = _welch(list(a.values()), list(b.values()))
    return Comparison(
        seeds=seeds,
        differences=tuple(differences),
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

    `spread` is the standard deviation of the paired differences. With a true difference, t follows
    a noncentral t distribution of n − 1 degrees of freedom and noncentrality √n·difference/spread;
    the power is what it puts beyond the two critical values. None if 10,000 seeds do not suffice.
    """
    effect = abs(difference) / spread
    if power(effect, MAX_SEEDS) < POWER:
        return None
    too_few, enough = 1, 2
    while power(effect, enough) < POWER:
        too_few, enough = enough, min(2 * enough, MAX_SEEDS)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if power(effect, middle) >= POWER else (middle, enough)
    return enough


def power(effect: float, n: int) -> float:
    """Power of the two-sided paired t-test at the level 0.05.

    `effect` is the mean of the differences in units of their standard deviation.
    """
    from scipy.stats import nct, t

    critical = t.ppf(1 - LEVEL / 2, n - 1)
    noncentrality = effect * math.sqrt(n)
    # The lower tail holds next to nothing, and scipy may give nan where it underflows.
    beyond = float(nct.sf(critical, n - 1, noncentrality))
    opposite = float(nct.cdf(-critical, n - 1, noncentrality))
    return beyond + (opposite if math.isfinite(opposite) else 0.0)


def _real_spread(differences: Sequence[float], largest: float) -> float | None:
    """Their standard deviation, or None if it is only rounding of values of size `largest`."""
    spread = stdev(differences)
    return spread if spread > 1e-12 * largest else None


def _t_interval(center: float, error: float, freedom: float) -> tuple[Interval, float]:
    """The interval of `center` with standard error `error`, and the p of its being zero."""
    from scipy.stats import t

    reach = float(t.ppf(1 - LEVEL / 2, freedom)) * error
    return (center - reach, center + reach), float(2 * t.sf(abs(center) / error, freedom))


def _welch(a: Sequence[float], b: Sequence[float]) -> tuple[float | None, Interval | None]:
    """Mean of a − mean of b with Welch's 95 % interval (None below two values, or unvaried)."""
    if not a or not b:
        return None, None
    difference = fmean(a) - fmean(b)
    if len(a) < 2 or len(b) < 2:
        return difference, None
    squares = variance(a) / len(a), variance(b) / len(b)
    error = math.sqrt(sum(squares))
    if error <= 1e-12 * (abs(fmean(a)) + abs(fmean(b))):
        return difference, None
    freedom = sum(squares) ** 2 / (squares[0] ** 2 / (len(a) - 1) + squares[1] ** 2 / (len(b) - 1))
    return difference, _t_interval(difference, error, freedom)[0]
