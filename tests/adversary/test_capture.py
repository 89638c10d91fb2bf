"""A step of the game must fit into a captured graph: no operation waits for the device or feeds it.

Checked without a GPU, by watching which operations forward and backward are made of.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ctkd.adversary import gradient_reversal
from ctkd.losses.objectives import DKD
from ctkd.losses.transforms import LogitStandardization
from ctkd.temperature import (
    AnnealedTemperature,
    ConstantTemperature,
    GlobalTemperature,
    InstanceTemperature,
)

# Reading a value or a size that depends on values; making a tensor of Python numbers.
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::lift_fresh"}


class Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name().rpartition(".")[0] or func.name())
        return func(*args, **(kwargs or {}))


def test_the_watch_sees_what_it_looks_for():
    x = torch.arange(3.0)
    with Watch() as watch:
        float(x[1])
        x[x > 1]
        torch.tensor(4.0)
    seen = {name.partition(".")[0] for name in watch.names}
    assert {"aten::_local_scalar_dense", "aten::lift_fresh"} <= seen
    assert seen & {"aten::nonzero", "aten::index"}


@pytest.mark.parametrize(
    "policy",
    [
        ConstantTemperature(),
        AnnealedTemperature(shape="linear"),
        AnnealedTemperature(shape="cosine"),
        AnnealedTemperature(shape="exponential"),
        GlobalTemperature(),
        InstanceTemperature(5, order="teacher", inputs="probabilities", batch_norm=True),
    ],
    ids=lambda policy: f"{type(policy).__name__}-{getattr(policy, 'shape', '')}",
)
@pytest.mark.parametrize("progress", [0.3, torch.tensor(0.3)], ids=["float", "tensor"])
def test_a_step_waits_for_nothing(policy, progress):
    student = torch.randn(4, 5, requires_grad=True)
    teacher, targets, lambda_ = torch.randn(4, 5), torch.tensor([0, 1, 2, 3]), torch.tensor(0.5)
    objective = DKD(kd_weight=1.0)
    with Watch() as watch:
        s, t = LogitStandardization()(student, teacher)
        temperature = policy(s, t, progress)
        if policy.learned:
            temperature = gradient_reversal(temperature, lambda_)
        terms = objective(s, t, targets, temperature, student)
        sum(term.sum() for term in terms.values()).backward()
    seen = {name.partition(".")[0] for name in watch.names}
    assert not seen & WAITING
    assert "aten::_log_softmax" in seen  # it did watch
