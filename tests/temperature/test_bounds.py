"""The bounded map and its inverse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctkd.errors import ConfigError
from ctkd.temperature.bounds import Bounds


def test_published_start_and_middle():
    bounds = Bounds(tau_init=1.0, tau_range=20.0)
    assert bounds.temperature(torch.tensor(1.0)).item() == pytest.approx(15.6212, abs=5e-5)
    assert bounds.temperature(torch.tensor(0.0)).item() == 11.0
    assert (bounds.lower, bounds.upper) == (1.0, 21.0)


@settings(deadline=None, max_examples=50)
@given(tau_init=st.floats(0.1, 10.0), tau_range=st.floats(0.1, 50.0), share=st.floats(0.001, 0.999))
def test_raw_is_the_inverse(tau_init, tau_range, share):
    bounds = Bounds(tau_init, tau_range)
    temperature = tau_init + share * tau_range
    raw = torch.tensor(bounds.raw(temperature), dtype=torch.float64)
    assert bounds.temperature(raw).item() == pytest.approx(temperature, rel=1e-12)


def test_the_inverse_exists_only_between_the_bounds():
    for temperature in (1.0, 21.0, 0.0, 30.0, float("nan")):
        with pytest.raises(ValueError, match=r"strictly between 1\.0 and 21\.0"):
            Bounds().raw(temperature)


def test_derivative_and_precision():
    raw = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Bounds().temperature, (raw,))
    half = Bounds().temperature(torch.tensor(1.0, dtype=torch.bfloat16))
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(15.6212, abs=5e-5)


def test_a_saturated_raw_sits_on_a_bound_and_stays_finite():
    raw = torch.tensor([-1e4, -30.0, 30.0, 1e4], requires_grad=True)
    temperature = Bounds().temperature(raw)
    assert temperature.tolist() == [1.0, 1.0, 21.0, 21.0]
    temperature.sum().backward()
    assert raw.grad.isfinite().all()
    inside = Bounds().temperature(torch.tensor([-15.0, 15.0]))
    assert 1.0 < inside[0] < inside[1] < 21.0


@pytest.mark.parametrize("parameter", ["tau_init", "tau_range"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_settings_out_of_range_are_errors(parameter, value):
    with pytest.raises(ConfigError, match=rf"Owner\.{parameter} = {value}.*> 0"):
        Bounds(owner="Owner", **{parameter: value})
