"""Batch normalization over ranks: the values of the ordinary one, in float64 and on bfloat16."""

import pytest
import torch
from torch import nn

from ctkd.engine.distributed.batch_norm import SyncedBatchNorm, synchronize_batch_norm
from ctkd.engine.distributed.world import World


@pytest.mark.parametrize("shape", [(16, 3, 5, 4), (16, 3)])
def test_the_normalization_over_ranks_is_the_ordinary_one_for_a_single_rank(shape):
    """Mean, variance, running statistics and gradients, against torch's own in float64."""
    torch.manual_seed(0)
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    ordinary = kind(3)
    nn.init.normal_(ordinary.weight)
    nn.init.normal_(ordinary.bias)
    holder = nn.Sequential(kind(3))
    holder.load_state_dict({f"0.{k}": v for k, v in ordinary.state_dict().items()})
    synced = SyncedBatchNorm.of(holder[0], World())
    ordinary.double()
    inputs = torch.randn(shape) * 3 + 2
    mine, theirs = (inputs.clone().to(t).requires_grad_() for t in (torch.float32, torch.float64))
    ours, expected = synced(mine), ordinary(theirs)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn(shape)
    (ours * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-4, atol=1e-5)
    for name in ("weight", "bias"):
        torch.testing.assert_close(
            getattr(synced, name).grad.double(), getattr(ordinary, name).grad, rtol=1e-4, atol=1e-4
        )
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        one, other = getattr(synced, name), getattr(ordinary, name)
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-5, atol=1e-6)
    synced.eval()
    ordinary.eval()
    torch.testing.assert_close(
        synced(inputs).double(), ordinary(inputs.double()), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("mean", [0.0, 3.0, 20.0])
def test_the_normalization_over_ranks_computes_in_float32_on_bfloat16(mean):
    """A channel far from zero: scale and shift, rounded to 16 bits, would not cancel."""
    torch.manual_seed(0)
    ordinary = nn.BatchNorm2d(3)
    synced = SyncedBatchNorm.of(nn.BatchNorm2d(3), World())
    inputs = (torch.randn(64, 3, 8, 8) + mean).bfloat16()
    ours, expected = synced(inputs), ordinary(inputs)
    assert ours.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(ours, expected, rtol=0.01, atol=0.01)
    assert ours.float().mean((0, 2, 3)).abs().max() < 0.002


def test_a_network_keeps_its_parameters_and_their_names():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()))
    before = dict(network.named_parameters())
    names = list(network.state_dict())
    synchronize_batch_norm(network, World())
    assert type(network[1][0]) is nn.BatchNorm2d  # one rank: nothing to do
    synchronize_batch_norm(network, World(0, 2))
    assert type(network[1][0]) is SyncedBatchNorm
    assert list(network.state_dict()) == names
    assert all(value is before[name] for name, value in network.named_parameters())
