"""The global learned temperature."""

import gin
import pytest
import torch

from ctkd.registry import TEMPERATURES
from ctkd.temperature import GlobalTemperature

LOGITS = torch.zeros(3, 5)


def test_it_starts_at_the_published_temperature():
    temperature = GlobalTemperature()(LOGITS, LOGITS, 0.0)
    assert temperature.shape == ()
    assert temperature.dtype == torch.float32
    assert temperature.item() == pytest.approx(15.6212, abs=5e-5)


def test_it_has_one_parameter_whose_gradient_is_the_sigmoids():
    policy = GlobalTemperature(tau_init=2.0, tau_range=10.0, raw_init=0.0)
    assert policy.learned is True
    assert policy.bounds == (2.0, 12.0)
    assert {name: p.numel() for name, p in policy.named_parameters()} == {"raw": 1}
    temperature = policy(LOGITS, LOGITS, 0.0)
    temperature.backward()
    assert temperature.item() == 7.0
    assert policy.raw.grad.item() == 2.5  # tau_range · ¼


def test_its_state_can_be_saved_and_loaded():
    moved = GlobalTemperature()
    moved.raw.data.fill_(-1.5)
    policy = GlobalTemperature()
    policy.load_state_dict(moved.state_dict())
    assert policy(LOGITS, LOGITS, 0.0) == moved(LOGITS, LOGITS, 0.0)


def test_half_precision_parameters_still_give_float32():
    assert GlobalTemperature().bfloat16()(LOGITS, LOGITS, 0.0).dtype == torch.float32


def test_bindings_reach_the_constructor_through_gin():
    gin.parse_config("import ctkd.temperature\nGlobalTemperature.tau_range = 4")
    assert TEMPERATURES.component("GlobalTemperature").bound().bounds == (1.0, 5.0)
