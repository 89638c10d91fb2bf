"""The gradient reversal, alone and in the game between a student and a temperature."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctkd.adversary.grl import gradient_reversal
from ctkd.losses.kd import kd_loss
from ctkd.temperature import GlobalTemperature, InstanceTemperature


@settings(deadline=None, max_examples=40)
@given(
    shape=st.sampled_from([(), (1,), (4, 1), (2, 3)]),
    lambda_=st.floats(0.0, 10.0),
    as_tensor=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_identity_forward_and_minus_lambda_backward(shape, lambda_, as_tensor, dtype):
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype).requires_grad_()
    upstream = torch.randn(shape).to(dtype)
    strength = torch.tensor(lambda_, dtype=torch.float64) if as_tensor else lambda_
    y = gradient_reversal(x, strength)
    assert y.dtype == dtype
    assert torch.equal(y, x)
    y.backward(upstream)
    assert x.grad.shape == x.shape
    assert x.grad.dtype == dtype
    expected = (-lambda_ * upstream.double()).to(dtype)
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("zero", [0.0, 0, torch.tensor(0.0), torch.zeros(1)])
def test_lambda_0_gives_exactly_0_even_for_infinite_gradients(zero):
    x = torch.ones(3, 1, requires_grad=True)
    gradient_reversal(x, zero).backward(torch.tensor([[2.0], [math.inf], [math.nan]]))
    assert (x.grad == 0).all()


@pytest.mark.parametrize("lambda_", [0.5, torch.tensor(0.5)])
def test_the_transforms_of_torch_func_reverse_it_too(lambda_):
    def loss(x):
        return gradient_reversal(x, lambda_).square().sum()

    x = torch.tensor([1.0, -3.0])
    assert torch.equal(torch.func.grad(loss)(x), -x)
    assert torch.equal(torch.func.vmap(torch.func.grad(loss))(x), -x)


def test_twice_reversed_is_once_forward():
    x = torch.tensor(3.0, requires_grad=True)
    gradient_reversal(gradient_reversal(x, 2.0), torch.tensor(0.5)).square().backward()
    assert x.grad.item() == 6.0


@pytest.mark.parametrize("as_tensor", [False, True])
def test_second_order(as_tensor):
    """x³ behind the reversal has the derivative −λ·3x², and that in turn −λ·6x·(−λ)."""
    x = torch.tensor([[0.5], [2.0]], dtype=torch.float64, requires_grad=True)
    lambda_ = torch.tensor(0.3, dtype=torch.float64) if as_tensor else 0.3
    (first,) = torch.autograd.grad(gradient_reversal(x, lambda_).pow(3).sum(), x, create_graph=True)
    torch.testing.assert_close(first, -0.3 * 3 * x.square())
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, 0.09 * 6 * x)


def test_lambda_receives_no_gradient_and_may_change_between_calls():
    lambda_ = torch.tensor(0.5, requires_grad=True)
    x = torch.tensor(2.0, requires_grad=True)
    gradient_reversal(x, lambda_).backward()
    assert x.grad.item() == -0.5
    assert lambda_.grad is None
    with torch.no_grad():
        lambda_.fill_(0.25)
    x.grad = None
    gradient_reversal(x, lambda_).backward()
    assert x.grad.item() == -0.25


def test_lambda_1_gives_exactly_the_negative_gradient():
    x = torch.randn(5, 1, requires_grad=True)
    (plain,) = torch.autograd.grad(x.exp().sum(), x)
    (turned,) = torch.autograd.grad(gradient_reversal(x, 1.0).exp().sum(), x)
    assert torch.equal(turned, -plain)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_under_torch_compile(as_tensor):
    lambda_ = torch.tensor(0.4) if as_tensor else 0.4
    compiled = torch.compile(
        lambda x: gradient_reversal(x, lambda_).square().sum(), backend="aot_eager", fullgraph=True
    )
    x = torch.randn(4, 1, requires_grad=True)
    compiled(x).backward()
    torch.testing.assert_close(x.grad, -0.4 * 2 * x.detach())
    if as_tensor:  # its value is not part of the graph
        lambda_.fill_(0.0)
        x.grad = None
        compiled(x).backward()
        assert (x.grad == 0).all()


@pytest.mark.parametrize("lambda_", [-0.1, -1, math.nan, math.inf])
def test_a_number_below_0_is_an_error(lambda_):
    with pytest.raises(ValueError, match=rf"lambda_ = {lambda_}.*>= 0"):
        gradient_reversal(torch.tensor(1.0), lambda_)


def test_a_tensor_of_strengths_or_on_another_device_is_an_error():
    with pytest.raises(ValueError, match=r"\[2\].*one element"):
        gradient_reversal(torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match="lambda_ is on meta, x on cpu"):
        gradient_reversal(torch.ones(2), torch.ones((), device="meta"))


def game(lambda_, policy):
    """A frozen student, a teacher with larger logits for similar classes, and the loss."""
    generator = torch.Generator().manual_seed(0)
    teacher = 4 * torch.randn(32, 20, generator=generator)
    student = (0.3 * teacher + torch.randn(32, 20, generator=generator)).requires_grad_()
    temperature = gradient_reversal(policy(student, teacher, 0.0), lambda_)
    return student, teacher, kd_loss(student, teacher, temperature)


@pytest.mark.parametrize("raw_init", [-5.0, 1.0])
def test_the_temperature_climbs_the_loss_of_a_frozen_student(raw_init):
    """One SGD step through the reversal: sign(ΔT) = sign(dL/dT), from below T* and from above."""
    policy = GlobalTemperature(raw_init=raw_init)
    with torch.no_grad():
        before = policy(torch.empty(0), torch.empty(0), 0.0)
    student, teacher, loss = game(torch.tensor(0.5), policy)
    free = before.clone().requires_grad_()
    (slope,) = torch.autograd.grad(kd_loss(student.detach(), teacher, free), free)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        after = policy(torch.empty(0), torch.empty(0), 0.0)
    assert slope.sign().item() == (1.0 if raw_init == -5.0 else -1.0)  # both sides of T*
    assert torch.sign(after - before) == slope.sign()
    assert kd_loss(student, teacher, after) > kd_loss(student, teacher, before)


@pytest.mark.parametrize("kind", ["global", "instance"])
def test_lambda_0_leaves_the_students_gradient_and_gives_the_policy_none(kind):
    def policy():
        return GlobalTemperature() if kind == "global" else InstanceTemperature(20, hidden=4)

    gradients = []
    for lambda_ in (0.0, 1.0):
        torch.manual_seed(0)
        learned = policy()
        student, _, loss = game(lambda_, learned)
        loss.backward()
        gradients.append(student.grad)
        reached = [p.grad.abs().sum().item() for p in learned.parameters()]
        assert (max(reached) == 0) is (lambda_ == 0.0)
    assert torch.equal(*gradients)
