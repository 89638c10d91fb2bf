"""Schedules of the reversal's strength, against the published values."""

import math

import gin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctkd.adversary.schedules import ConstantLambda, CosineLambda, LinearLambda
from ctkd.errors import ConfigError
from ctkd.registry import SCHEDULES

PUBLISHED = [0.0245, 0.0955, 0.2061, 0.3455, 0.5, 0.6545, 0.7939, 0.9045, 0.9755, 1.0]


def test_cosine_has_the_published_values_and_is_then_held():
    schedule = CosineLambda()
    assert [round(schedule(float(done)), 4) for done in range(10)] == PUBLISHED
    assert {schedule(done) for done in (9.0, 9.7, 10.0, 150.0, 239.99)} == {1.0}


@pytest.mark.parametrize("epochs", [5, 10])
def test_cosine_is_the_papers_formula(epochs):
    schedule = CosineLambda(start=0.2, end=0.7, epochs=epochs)
    for n in range(1, 15):
        angle = (1 + min(n, epochs) / epochs) * math.pi
        expected = 0.2 + 0.5 * (0.7 - 0.2) * (1 + math.cos(angle))
        assert schedule(n - 1.0) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("kind", [LinearLambda, CosineLambda])
def test_a_value_is_held_through_its_whole_epoch(kind):
    schedule = kind()
    assert schedule(3.0) == schedule(3.4) == schedule(3.999)
    assert schedule(3.0) < schedule(4.0)
    assert schedule(4.0 - 1e-9) == schedule(4.0)  # a boundary except for rounding


def test_linear_reaches_its_maximum():
    schedule = LinearLambda()
    assert [schedule(float(done)) for done in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert schedule(9.0) == schedule(100.0) == 1.0
    assert LinearLambda(start=1.0, end=3.0, epochs=4)(0.0) == 1.5


def test_smooth_evaluates_the_curve_at_the_position():
    assert LinearLambda(smooth=True)(2.5) == pytest.approx(0.25)
    cosine = CosineLambda(smooth=True)
    assert cosine(0.0) == 0.0
    assert cosine(2.5) == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert cosine(10.0) == cosine(77.7) == 1.0
    # At whole positions it is the stepwise curve, one epoch later.
    assert [cosine(n) for n in range(1, 11)] == [CosineLambda()(n - 1) for n in range(1, 11)]


def test_constant():
    assert ConstantLambda()(0.0) == ConstantLambda()(99.5) == 1.0
    assert ConstantLambda(value=0.0)(3.0) == 0.0


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from([LinearLambda, CosineLambda]),
    start=st.floats(0.0, 10.0),
    end=st.floats(0.0, 10.0),
    epochs=st.floats(0.5, 50.0),
    smooth=st.booleans(),
    first=st.floats(0.0, 100.0),
    second=st.floats(0.0, 100.0),
)
def test_it_moves_one_way_between_its_ends_and_is_never_negative(
    kind, start, end, epochs, smooth, first, second
):
    schedule = kind(start, end, epochs, smooth)
    earlier, later = schedule(min(first, second)), schedule(max(first, second))
    tolerance = 1e-12
    assert (later - earlier) * math.copysign(1.0, end - start) >= -tolerance
    assert earlier >= max(min(start, end) - tolerance, 0.0)
    assert earlier <= max(start, end) + tolerance
    assert schedule(epochs) == end  # exactly


@pytest.mark.parametrize("position", [-0.5, math.nan])
def test_a_position_before_the_run_is_an_error(position):
    with pytest.raises(ValueError, match="position"):
        CosineLambda()(position)


def test_bindings_reach_the_constructor_through_gin():
    bound = SCHEDULES.component("CosineLambda").bound
    gin.parse_config("CosineLambda.epochs = 5")
    assert bound()(4.0) == 1.0
    gin.parse_config("CosineLambda.smooth = 'yes'")
    with pytest.raises(ConfigError, match=r"CosineLambda\.smooth"):
        bound()
