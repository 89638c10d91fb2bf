"""With its residual branch silenced, a block shows what its shortcut does."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ctkd.models.cifar_resnet import BasicBlock, Bottleneck
from ctkd.models.mobilenet import InvertedResidual
from ctkd.models.shufflenet import DownUnit, SplitUnit, Unit, shuffle
from ctkd.models.wrn import PreactivationBlock


def test_shuffle_interleaves_the_groups():
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert shuffle(channels, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert shuffle(channels, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize(("block", "last"), [(BasicBlock, "bn2"), (Bottleneck, "bn3")])
def test_a_residual_block_adds_its_input_and_then_activates(block, last):
    x = torch.randn(2, 16, 8, 8)
    same, narrower = block(16, 16, 1).eval(), block(16, 32, 2).eval()
    for each in (same, narrower):
        nn.init.zeros_(each.get_submodule(last).weight)
    torch.testing.assert_close(same(x), F.relu(x))
    projection = narrower.downsample if block is BasicBlock else narrower.shortcut
    torch.testing.assert_close(narrower(x), F.relu(projection(x)))
    assert narrower(x).shape == (2, 32, 4, 4)


def test_a_wide_block_adds_its_raw_input_or_projects_the_activated_one():
    x = torch.randn(2, 16, 8, 8)
    same, wider = PreactivationBlock(16, 16, 1).eval(), PreactivationBlock(16, 32, 2).eval()
    for block in (same, wider):
        nn.init.zeros_(block.conv2.weight)
    torch.testing.assert_close(same(x), x)
    torch.testing.assert_close(wider(x), wider.convShortcut(F.relu(wider.bn1(x))))


def test_an_inverted_residual_is_linear_and_added_only_between_equal_shapes():
    x = torch.randn(2, 8, 8, 8)
    same, strided = InvertedResidual(8, 8, 1, 6).eval(), InvertedResidual(8, 8, 2, 6).eval()
    for block in (same, strided):
        nn.init.zeros_(block.conv[-1].weight)
    torch.testing.assert_close(same(x), x)
    torch.testing.assert_close(strided(x), torch.zeros(2, 8, 4, 4))


def test_a_shuffle_unit_adds_its_input_or_concatenates_it_pooled():
    x = torch.randn(2, 24, 8, 8)
    down, same = Unit(24, 240, 2).eval(), Unit(240, 240, 1).eval()
    for unit in (down, same):
        nn.init.zeros_(unit.bn3.weight)
    expected = F.relu(F.avg_pool2d(x, 3, stride=2, padding=1))
    torch.testing.assert_close(down(x)[:, 216:], expected)
    assert not down(x)[:, :216].any()
    wide = torch.randn(2, 240, 4, 4)
    torch.testing.assert_close(same(wide), F.relu(wide))


def test_a_split_unit_passes_its_first_half_to_the_even_channels():
    x = torch.randn(2, 8, 4, 4)
    unit = SplitUnit(8).eval()
    nn.init.zeros_(unit.bn3.weight)
    torch.testing.assert_close(unit(x)[:, ::2], x[:, :4])
    assert not unit(x)[:, 1::2].any()


def test_a_down_unit_computes_both_halves_from_all_channels():
    x = torch.randn(2, 6, 8, 8)
    unit = DownUnit(6, 8).eval()
    nn.init.zeros_(unit.bn5.weight)
    left = F.relu(unit.bn2(unit.conv2(unit.bn1(unit.conv1(x)))))
    torch.testing.assert_close(unit(x)[:, ::2], left)
    assert not unit(x)[:, 1::2].any()
