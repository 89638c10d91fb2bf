import math

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from ctkd.results.compare.statistics import mean_std, paired_difference, power, seeds_needed


def by_seed(values):
    return dict(enumerate(values))


def test_mean_and_std_by_hand():
    found = mean_std([70.0, 71.0, 75.0])
    assert (found.n, found.mean) == (3, 72.0)
    assert found.std == pytest.approx(math.sqrt(7))  # (4 + 1 + 9) / 2
    assert mean_std([70.0]).std is None


def test_paired_difference_by_hand():
    # d = 1, 2, 3: mean 2, variance 1, t = 2√3 with two degrees of freedom;
    # the 97.5 % quantile of t with two degrees of freedom is 4.302653.
    found = paired_difference({1: 11.0, 2: 22.0, 3: 33.0}, {1: 10.0, 2: 20.0, 3: 30.0})
    assert (found.n, found.seeds, found.difference) == (3, (1, 2, 3), 2.0)
    reach = 4.302653 / math.sqrt(3)
    assert found.interval == pytest.approx((2 - reach, 2 + reach), abs=1e-5)
    t = 2 * math.sqrt(3)
    assert found.p_value == pytest.approx(1 - t / math.sqrt(2 + t**2))  # closed form for two
    assert found.paired_variance == pytest.approx(1.0)
    assert found.unpaired_variance == pytest.approx(221.0)  # 121 + 100


def test_welchs_interval_by_hand():
    # Variances 1 and 4 of three values each: standard error √(5/3), by Welch and Satterthwaite
    # (5/3)² / ((1/3)²/2 + (4/3)²/2) = 50/17 degrees of freedom, whose 97.5 % quantile is 3.2182.
    found = paired_difference(by_seed([11.0, 12.0, 13.0]), by_seed([8.0, 10.0, 12.0]))
    reach = scipy.stats.t.ppf(0.975, 50 / 17) * math.sqrt(5 / 3)
    assert found.welch_interval == pytest.approx((2 - reach, 2 + reach))


@pytest.mark.filterwarnings("error")
def test_a_method_without_any_spread_gives_no_warning():
    found = paired_difference({0: 70.0, 1: 70.0, 2: 70.0}, {0: 69.0, 1: 70.5, 2: 70.1})
    assert found.interval is not None
    assert found.welch_interval is not None


def test_only_shared_seeds_are_paired_and_all_enter_welch():
    found = paired_difference({0: 71.0, 1: 72.0, 5: 90.0}, {1: 70.5, 0: 70.0, 7: 60.0})
    assert (found.seeds, found.difference) == ((0, 1), 1.25)
    assert found.welch_difference == pytest.approx(233 / 3 - 200.5 / 3)


def test_too_little_is_answered_with_none():
    alone = paired_difference({0: 71.0}, {0: 70.0})
    assert (alone.n, alone.difference, alone.welch_difference) == (1, 1.0, 1.0)
    assert (alone.interval, alone.p_value, alone.welch_interval) == (None, None, None)
    assert (alone.paired_variance, alone.seeds_needed) == (None, None)
    apart = paired_difference({0: 71.0, 1: 71.5}, {2: 70.0, 3: 70.4})
    assert (apart.n, apart.difference, apart.p_value) == (0, None, None)
    assert apart.welch_interval is not None
    assert paired_difference({}, {0: 70.0}).welch_difference is None


def test_two_seeds_do_not_say_how_many_are_needed():
    two = paired_difference({0: 71.0, 1: 71.5}, {0: 70.0, 1: 70.4})
    assert (two.n, two.seeds_needed) == (2, None)
    assert two.interval is not None
    three = paired_difference({0: 71.0, 1: 71.5, 2: 70.9}, {0: 70.0, 1: 70.4, 2: 70.1})
    assert three.seeds_needed is not None


def test_equal_differences_are_no_certainty():
    # 70.1 − 70.0 and 71.1 − 71.0 differ by rounding only
    found = paired_difference({0: 70.1, 1: 71.1}, {0: 70.0, 1: 71.0})
    assert found.difference == pytest.approx(0.1)
    assert (found.interval, found.p_value, found.seeds_needed) == (None, None, None)
    same = paired_difference({0: 70.0, 1: 70.0}, {0: 70.0, 1: 70.0})
    assert (same.interval, same.welch_interval) == (None, None)


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_needed_are_those_of_the_textbooks(effect, n):
    """Two-sided paired t-test, level 0.05, power 0.8 (Cohen's small, medium and large effect)."""
    assert seeds_needed(effect, 1.0) == n
    assert seeds_needed(-3 * effect, 3.0) == n


@given(st.floats(0.05, 20))
def test_seeds_needed_is_the_least_number_with_the_power(effect):
    n = seeds_needed(effect, 1.0)
    assert power(effect, n) >= 0.8
    assert n == 2 or power(effect, n - 1) < 0.8


def test_no_number_of_seeds_finds_nothing():
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.001, 1.0) is None
