"""Two groups in one optimizer, and the learning rate as a function of the place in the recipe."""

import math
import operator

import pytest
import torch
from torch import nn

from ctkd.engine.optim import Optimizer, SGDRecipe
from ctkd.errors import ConfigError
from ctkd.temperature import ConstantTemperature, GlobalTemperature


def rates(recipe, positions, epochs=240):
    return [recipe.learning_rate(position, epochs) for position in positions]


def networks(scale=1.0):
    """A student of one weight vector and a global policy, with given gradients."""
    student, policy = nn.Linear(3, 1, bias=False), GlobalTemperature()
    with torch.no_grad():
        student.weight.copy_(torch.tensor([[1.0, -2.0, 0.5]]))
    student.weight.grad = scale * torch.tensor([[3.0, 4.0, 0.0]])
    policy.raw.grad = torch.tensor(scale * 2.0)
    return student, policy


def test_the_published_milestones_fall_after_their_epochs():
    """0.05, ×0.1 after epochs 150, 180 and 210 (mdistiller, CTKD)."""
    published = SGDRecipe(lr=0.05, milestones=(150, 180, 210))
    found = rates(published, (0, 149.99, 150, 179.99, 180, 210, 239.99))
    expected = (0.05, 0.05, 0.005, 0.005, 0.0005, 0.00005, 0.00005)
    assert found == pytest.approx(expected, rel=1e-12)


def test_fractions_are_of_the_whole_run():
    fractions, epochs = SGDRecipe(milestones=(0.625, 0.75, 0.875)), SGDRecipe()
    places = [position / 2 for position in range(480)]
    assert rates(fractions, places) == rates(epochs, places)
    assert rates(fractions, (24, 25, 30, 35), 40) == pytest.approx((0.05, 0.005, 5e-4, 5e-5))


def test_a_fraction_that_rounds_past_its_epoch_still_falls_there():
    assert 0.28 * 25 > 7
    assert rates(SGDRecipe(milestones=(0.28,)), (6.99, 7.0), 25) == pytest.approx((0.05, 0.005))


def test_warm_up_rises_linearly_and_then_is_over():
    warm = SGDRecipe(lr=0.2, warmup_epochs=4.0, milestones=(100,))
    assert rates(warm, (1, 2, 3, 4, 5)) == pytest.approx((0.05, 0.1, 0.15, 0.2, 0.2))
    assert 0 < warm.learning_rate(0.0, 240) < 0.001


def test_no_milestones_is_a_constant_rate():
    assert set(rates(SGDRecipe(lr=0.3, milestones=()), range(240))) == {0.3}


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"lr": 0.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"lr": math.inf}, "lr"),
        ({"gamma": -0.1}, "gamma"),
        ({"momentum": -0.9}, "momentum"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        ({"warmup_epochs": -1.0}, "warmup_epochs"),
        ({"policy_lr_scale": math.inf}, "policy_lr_scale"),
        ({"policy_weight_decay": -1.0}, "policy_weight_decay"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"clip_norm": math.nan}, "clip_norm"),
        ({"policy_clip_norm": -1.0}, "policy_clip_norm"),
        ({"milestones": (180, 150)}, "milestones"),
        ({"milestones": (150, 150)}, "milestones"),
        ({"milestones": (0.5, 150)}, "milestones"),
        ({"milestones": (0, 150)}, "milestones"),
        ({"milestones": (-1,)}, "milestones"),
        ({"milestones": (0.5, math.nan)}, "milestones"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, name):
    with pytest.raises(ConfigError, match=rf"^SGD\.{name} = .*: expected "):
        SGDRecipe(**wrong)


def test_a_step_is_sgd_with_weight_decay_on_the_student_alone():
    recipe = SGDRecipe(lr=0.1, momentum=0.0, weight_decay=0.5)
    student, policy = networks()
    Optimizer(recipe, student, policy).step()
    # w − lr (g + decay · w), by hand
    expected = [[1.0 - 0.1 * (3 + 0.5), -2.0 - 0.1 * (4 - 1.0), 0.5 - 0.1 * 0.25]]
    torch.testing.assert_close(student.weight.data, torch.tensor(expected))
    assert policy.raw.item() == pytest.approx(1.0 - 0.1 * 2.0)


def test_momentum_accumulates():
    """v ← μ v + g, w ← w − lr v (PyTorch's form, the one the public codes use)."""
    student, policy = networks()
    optimizer = Optimizer(SGDRecipe(lr=0.1, momentum=0.9, weight_decay=0.0), student, policy)
    optimizer.step()
    student.weight.grad = torch.tensor([[3.0, 4.0, 0.0]])
    optimizer.step()
    expected = [[1.0 - 0.1 * (3 + 5.7), -2.0 - 0.1 * (4 + 7.6), 0.5]]
    torch.testing.assert_close(student.weight.data, torch.tensor(expected))


def test_the_policy_has_a_rate_a_decay_and_a_clipping_of_its_own():
    recipe = SGDRecipe(
        lr=0.1,
        momentum=0.0,
        weight_decay=0.0,
        policy_lr_scale=3.0,
        policy_weight_decay=0.5,
        policy_clip_norm=1.0,
    )
    student, policy = networks()
    optimizer = Optimizer(recipe, student, policy)
    optimizer.set_learning_rate(0.2)
    optimizer.step()
    assert policy.raw.item() == pytest.approx(1.0 - 0.2 * 3.0 * (1.0 + 0.5), rel=1e-5)
    torch.testing.assert_close(student.weight.data, torch.tensor([[0.4, -2.8, 0.5]]))


def test_clipping_is_per_group_and_the_norms_told_are_those_before_it():
    recipe = SGDRecipe(lr=1.0, momentum=0.0, weight_decay=0.0, clip_norm=0.5)
    student, policy = networks()
    norms = Optimizer(recipe, student, policy).step()
    assert [norm.item() for norm in norms] == pytest.approx([5.0, 2.0])  # (3, 4) and 2
    expected = torch.tensor([[1.0 - 0.3, -2.0 - 0.4, 0.5]])
    torch.testing.assert_close(student.weight.data, expected, rtol=1e-5, atol=1e-5)
    assert policy.raw.item() == pytest.approx(-1.0)  # not clipped


def test_a_gradient_below_the_limit_is_left_as_it_is():
    recipe = SGDRecipe(lr=1.0, momentum=0.0, weight_decay=0.0, clip_norm=5.5)
    student, policy = networks()
    Optimizer(recipe, student, policy).step()
    torch.testing.assert_close(student.weight.data, torch.tensor([[-2.0, -6.0, 0.5]]))


@pytest.mark.parametrize("policy", [None, ConstantTemperature(4.0)])
def test_without_a_learned_policy_there_is_one_group(policy):
    student, _ = networks()
    optimizer = Optimizer(SGDRecipe(), student, policy)
    assert len(optimizer.torch.param_groups) == 1
    norms = optimizer.step()
    assert norms[1].item() == 0.0


def test_gradients_are_forgotten_after_a_step():
    student, policy = networks()
    Optimizer(SGDRecipe(), student, policy).step()
    assert student.weight.grad is None
    assert policy.raw.grad is None


def test_frozen_parameters_are_left_out():
    student = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    student[0].requires_grad_(False)
    optimizer = Optimizer(SGDRecipe(), student, None)
    assert sum(p.numel() for p in optimizer.torch.param_groups[0]["params"]) == 3


def test_a_loaded_state_leaves_the_rates_where_a_captured_step_reads_them():
    student, policy = networks()
    first = Optimizer(SGDRecipe(lr=0.1, policy_lr_scale=2.0), student, policy)
    first.set_learning_rate(0.025)
    first.step()
    second = Optimizer(SGDRecipe(lr=0.1, policy_lr_scale=2.0), *networks())
    rates = [group["lr"] for group in second.torch.param_groups]
    second.load(first.state())
    assert all(map(operator.is_, rates, (group["lr"] for group in second.torch.param_groups)))
    assert torch.tensor(rates).tolist() == pytest.approx([0.025, 0.05])
    second.set_learning_rate(0.5)
    assert first.torch.param_groups[0]["lr"].item() == pytest.approx(0.025)
    loaded = second.torch.state[second.student[0]]["momentum_buffer"]
    assert torch.equal(loaded, first.torch.state[first.student[0]]["momentum_buffer"])
