"""check_policy finds faults, and accepts a policy from outside the package."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ctkd.testing import check_policy


class Learned(nn.Module):
    """T = 1 + softplus(raw + sum of detached probabilities · weight)."""

    learned, bounds = True, None

    def __init__(self):
        super().__init__()
        self.raw = nn.Parameter(torch.tensor(1.0))
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, student, teacher, progress):
        tops = self.see(teacher).to(self.raw.dtype).softmax(1).amax(1, keepdim=True)
        return self.bound(self.raw + self.weight * tops)

    def see(self, logits):
        return logits.detach()

    def bound(self, raw):
        return 1 + F.softplus(raw)


class Attached(Learned):
    def see(self, logits):
        return logits


class OutOfBounds(Learned):
    bounds = (1.0, 2.0)


class NotPositive(Learned):
    def bound(self, raw):
        return raw


class HalfTemperature(Learned):
    def bound(self, raw):
        return super().bound(raw).bfloat16()


class NotLearned(Learned):
    learned = False


class Unreached(Learned):
    def bound(self, raw):
        return 1 + F.softplus(raw.detach() + 0 * self.raw)


class WrongShape(Learned):
    def bound(self, raw):
        return super().bound(raw).squeeze(1)


class FromTheHost(Learned):
    def bound(self, raw):
        return torch.tensor(1.0) + F.softplus(raw)


def test_a_policy_from_outside_keeps_the_contract():
    check_policy(Learned())


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Attached, "a gradient reaches the logits: detach them"),
        (OutOfBounds, "from 1.0 to 2.0"),
        (NotPositive, "for parameters times -10000.0: expected > 0"),
        (HalfTemperature, "T is torch.bfloat16"),
        (NotLearned, "T.requires_grad is not learned = False"),
        (Unreached, "no gradient reaches the parameters"),
        (WrongShape, "T has shape [1]: expected 0-d or [N, 1]"),
        (FromTheHost, "a GPU would wait for lift_fresh"),
    ],
)
def test_faulty_policies(kind, fault):
    with pytest.raises(AssertionError) as caught:
        check_policy(kind())
    assert fault in str(caught.value)
