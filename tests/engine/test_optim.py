"""The step of student and policy: groups, clipping, and each with an optimizer of its own kind."""

import math
import operator

import pytest
import timm.optim
import torch
from torch import nn

from ctkd.engine.optim import Optimizer
from ctkd.engine.optimizer_recipes import AdamWRecipe, LionRecipe, SGDRecipe
from ctkd.engine.other_optimizers import TorchOptimizerRecipe
from ctkd.engine.parameter_groups import grouped, layers_of
from ctkd.errors import ConfigError
from ctkd.temperature import ConstantTemperature, GlobalTemperature


def networks(scale=1.0):
    """A student of one weight vector and a global policy, with given gradients."""
    student, policy = nn.Linear(3, 1, bias=False), GlobalTemperature()
    with torch.no_grad():
        student.weight.copy_(torch.tensor([[1.0, -2.0, 0.5]]))
    student.weight.grad = scale * torch.tensor([[3.0, 4.0, 0.0]])
    policy.raw.grad = torch.tensor(scale * 2.0)
    return student, policy


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
    assert optimizer.at(0, 2.0) == pytest.approx(0.2)
    optimizer.step()
    assert policy.raw.item() == pytest.approx(1.0 - 0.2 * 3.0 * (1.0 + 0.5), rel=1e-5)
    torch.testing.assert_close(student.weight.data, torch.tensor([[0.4, -2.8, 0.5]]))


def test_clipping_is_per_group_and_the_norms_are_those_before_it():
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
    assert [len(each.param_groups) for each in optimizer.torch] == [1]
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
    assert sum(p.numel() for p in optimizer.torch[0].param_groups[0]["params"]) == 3


def test_a_loaded_state_leaves_the_rates_where_a_captured_step_reads_them():
    student, policy = networks()
    first = Optimizer(SGDRecipe(lr=0.1, policy_lr_scale=2.0), student, policy)
    first.at(0, 0.25)
    first.step()
    second = Optimizer(SGDRecipe(lr=0.1, policy_lr_scale=2.0), *networks())
    rates = [group["lr"] for group in second.torch[0].param_groups]
    second.load(first.state())
    assert all(map(operator.is_, rates, (group["lr"] for group in second.torch[0].param_groups)))
    assert torch.tensor(rates).tolist() == pytest.approx([0.025, 0.05])
    second.at(0, 5.0)
    assert first.torch[0].param_groups[0]["lr"].item() == pytest.approx(0.025)
    loaded = second.torch[0].state[second.student[0]]["momentum_buffer"]
    assert torch.equal(loaded, first.torch[0].state[first.student[0]]["momentum_buffer"])


DECAY = 0.5


def adam_by_hand(weight, gradients, rates):
    """AdamW's steps on one number, in Python's float64."""
    mean = square = 0.0
    for step, (gradient, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        weight *= 1 - lr * DECAY
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        root = math.sqrt(square / (1 - 0.999**step)) + 1e-8
        weight -= lr * mean / (1 - 0.9**step) / root
    return weight


def lion_by_hand(weight, gradients, rates):
    """Lion's steps on one number."""
    momentum = 0.0
    for gradient, lr in zip(gradients, rates, strict=True):
        mixed = 0.9 * momentum + 0.1 * gradient
        weight -= lr * (math.copysign(1.0, mixed) + DECAY * weight)
        momentum = 0.99 * momentum + 0.01 * gradient
    return weight


@pytest.mark.parametrize(
    ("kind", "by_hand"), [(AdamWRecipe, adam_by_hand), (LionRecipe, lion_by_hand)]
)
def test_a_student_steps_by_its_optimizer_and_the_policy_by_sgd(kind, by_hand):
    recipe = kind(lr=0.1, weight_decay=DECAY, decay_norms_and_biases=True)
    student, policy = networks()
    optimizer = Optimizer(recipe, student, policy, policy_recipe=SGDRecipe(lr=0.2, momentum=0.0))
    factors, gradients = (1.0, 1.0, 0.5), ([3.0, 4.0, 0.5], [-9.0, 1.0, 2.0], [1.0, -2.0, 3.0])
    for factor, gradient in zip(factors, gradients, strict=True):
        student.weight.grad, policy.raw.grad = torch.tensor([gradient]), torch.tensor(2.0)
        optimizer.at(0, factor)
        optimizer.step()
    by_weight = zip((1.0, -2.0, 0.5), zip(*gradients, strict=True), strict=True)
    expected = [by_hand(weight, given, [0.1 * f for f in factors]) for weight, given in by_weight]
    assert student.weight[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert policy.raw.item() == pytest.approx(1.0 - 0.2 * 2.0 * sum(factors), abs=1e-6)


class Stack(nn.Module):
    """A stem, three blocks, a norm and a classifier, as a vision transformer has them."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.ones(1, 2, 2))
        self.stem = nn.Linear(2, 2)
        self.blocks = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(3))
        self.norm = nn.LayerNorm(2)
        self.head = nn.Linear(2, 2, bias=False)

    def no_weight_decay(self):
        return {"position"}


def test_norms_biases_and_positions_do_not_decay():
    spared, decayed = grouped(Stack(), 0.3, decay_norms_and_biases=False, layer_decay=1.0)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert [p.dim() for p in decayed["params"]] == [2] * 5
    assert sorted(p.dim() for p in spared["params"]) == [1, 1, 1, 3]
    (everything,) = grouped(Stack(), 0.3, decay_norms_and_biases=True, layer_decay=1.0)
    assert len(everything["params"]) == 9


def test_a_layer_has_its_decay_of_the_rate():
    layers = layers_of(Stack())
    expected = {"position": 0, "stem.weight": 0, "blocks.0.weight": 1, "blocks.2.weight": 3}
    assert layers | expected | {"norm.bias": 4, "head.weight": 4} == layers
    recipe = SGDRecipe(lr=1.0, layer_decay=0.5)
    optimizer = Optimizer(recipe, student := Stack(), None)
    optimizer.at(0, 0.1)
    rate = {id(p): g["lr"].item() for g in optimizer.torch[0].param_groups for p in g["params"]}
    found = [rate[id(p)] for p in (student.head.weight, student.blocks[2].weight, student.position)]
    assert found == pytest.approx([0.1, 0.05, 0.1 / 16])


def test_helpers_have_a_rate_a_decay_and_a_clipping_of_their_own():
    settings = {"helper_lr_scale": 2.0, "helper_weight_decay": 0.5, "clip_norm": 1.0}
    recipe = SGDRecipe(lr=0.1, momentum=0.0, weight_decay=0.0, **settings)
    student, policy = networks()
    helper = nn.Linear(1, 1, bias=False)
    nn.init.ones_(helper.weight)
    helper.weight.grad = torch.tensor([[7.0]])
    norms = Optimizer(recipe, student, policy, helpers=[helper]).step()
    assert norms[0].item() == pytest.approx(5.0)  # the student's alone
    assert helper.weight.item() == pytest.approx(1.0 - 0.1 * 2.0 * (1.0 + 0.5))


@pytest.mark.parametrize("name", ["Adam", "timm_adopt"])
def test_another_optimizer_by_its_name(name):
    recipe = TorchOptimizerRecipe(name=name, lr=0.1, weight_decay=0.0)
    optimizer = Optimizer(recipe, (student := networks()[0]), None)
    twin = (student.weight.detach().clone()).requires_grad_()
    kind = torch.optim.Adam if name == "Adam" else timm.optim.get_optimizer_class("adopt")
    plain = kind([twin], lr=0.1)
    for factor, gradient in ((1.0, [3.0, 4.0, 0.5]), (0.5, [-9.0, 1.0, 2.0]), (0.5, [1.0, 1, 1])):
        twin.grad, student.weight.grad = (torch.tensor([gradient]) for _ in range(2))
        plain.param_groups[0]["lr"] = 0.1 * factor
        optimizer.at(0, factor)
        optimizer.step()
        plain.step()
    torch.testing.assert_close(student.weight, twin)
    optimizer.load(optimizer.state())


def test_an_optimizer_that_is_not_there_is_refused():
    for wrong, message in (("Adan", "torch.optim has no"), ("timm_adopd", "mean adopt")):
        with pytest.raises(ConfigError, match=message):
            TorchOptimizerRecipe(name=wrong)
    odd = TorchOptimizerRecipe(name="Adam", options={"beta": 1})
    with pytest.raises(ConfigError, match="refuses"):
        Optimizer(odd, networks()[0], None)
