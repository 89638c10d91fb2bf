"""The annealed temperature: three curves between two values."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctkd.temperature import AnnealedTemperature

LOGITS = torch.zeros(3, 5)


def at(policy, progress):
    return policy(LOGITS, LOGITS, progress).item()


@pytest.mark.parametrize(
    ("shape", "quarter", "half"),
    [
        ("linear", 7.0, 5.0),
        ("cosine", 9.0 - 8.0 * (1 - math.cos(math.pi / 4)) / 2, 5.0),
        ("exponential", 9.0**0.75, 3.0),
    ],
)
def test_known_points(shape, quarter, half):
    policy = AnnealedTemperature(start=9.0, end=1.0, shape=shape)
    assert at(policy, 0.0) == pytest.approx(9.0, rel=1e-6)
    assert at(policy, 0.25) == pytest.approx(quarter, rel=1e-6)
    assert at(policy, 0.5) == pytest.approx(half, rel=1e-6)
    assert at(policy, 1.0) == pytest.approx(1.0, rel=1e-6)


def test_defaults_go_from_10_to_1_in_a_line():
    policy = AnnealedTemperature()
    assert [at(policy, x) for x in (0.0, 1.0)] == [10.0, 1.0]
    assert at(policy, 1 / 3) == pytest.approx(7.0, rel=1e-6)


@settings(deadline=None, max_examples=50)
@given(
    start=st.floats(0.5, 30.0),
    end=st.floats(0.5, 30.0),
    shape=st.sampled_from(["linear", "cosine", "exponential"]),
    first=st.floats(0.0, 1.0),
    second=st.floats(0.0, 1.0),
)
def test_it_moves_one_way_and_stays_between_its_ends(start, end, shape, first, second):
    policy = AnnealedTemperature(start, end, shape)
    earlier, later = (at(policy, x) for x in sorted((first, second)))
    tolerance = 1e-5 * max(start, end)
    assert (later - earlier) * math.copysign(1.0, end - start) >= -tolerance
    assert min(start, end) - tolerance <= earlier <= max(start, end) + tolerance


def test_beyond_the_run_it_stays_at_the_nearer_end():
    policy = AnnealedTemperature()
    assert (at(policy, -0.1), at(policy, 1.1)) == (10.0, 1.0)
