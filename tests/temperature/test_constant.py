"""The constant temperature."""

import torch

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


def test_it_follows_the_module_to_its_device():
    policy = ConstantTemperature().to("meta")
    assert policy(LOGITS, LOGITS, 0.0).device.type == "meta"
