"""The constant temperature."""

import pytest
import torch

from ctkd.errors import ConfigError
from ctkd.temperature import ConstantTemperature

LOGITS = torch.zeros(3, 5)


def test_it_is_what_was_set_at_any_progress():
    policy = ConstantTemperature(temperature=2.5)
    for progress in (0.0, 0.5, 1.0, torch.tensor(0.3)):
        temperature = policy(LOGITS, LOGITS, progress)
        assert temperature.shape == ()
        assert temperature.dtype == torch.float32
        assert temperature.item() == 2.5
    assert ConstantTemperature()(LOGITS, LOGITS, 0.0).item() == 4.0


def test_it_has_nothing_to_learn_or_to_save():
    policy = ConstantTemperature()
    assert policy.learned is False
    assert policy.bounds is None
    assert list(policy.parameters()) == []
    assert policy.state_dict() == {}


def test_it_follows_the_module_to_its_device():
    policy = ConstantTemperature().to("meta")
    assert policy(LOGITS, LOGITS, 0.0).device.type == "meta"


@pytest.mark.parametrize("value", [0.0, -4.0, float("nan"), float("inf")])
def test_only_temperatures_are_accepted(value):
    with pytest.raises(ConfigError, match=r"ConstantTemperature\.temperature"):
        ConstantTemperature(temperature=value)
