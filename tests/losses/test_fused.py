"""The closed-form backward passes of KD and DKD against the readable forms, and their memory."""

import inspect

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ctkd.losses.dkd import dkd_rows, dkd_terms
from ctkd.losses.kd import kd_rows
from ctkd.losses.row_blocks import CPU_BLOCK

SHAPES = ["scalar", "per row"]
GPU = pytest.mark.gpu(only=True)


def rows(n=6, c=10, scale=3.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(n, c, generator=generator, dtype=dtype)
    teacher = scale * torch.randn(n, c, generator=generator, dtype=dtype)
    return student.requires_grad_(), teacher, torch.randint(c, (n,), generator=generator)


def temperature_of(shape, n, value=2.5, dtype=torch.float64):
    size = () if shape == "scalar" else (n, 1)
    return torch.full(size, value, dtype=dtype, requires_grad=True)


def closed(loss, student, teacher, targets, temperature):
    if loss == "kd":
        return (kd_rows(student, teacher, temperature),)
    return dkd_terms(student, teacher, targets, temperature)


def readable(loss, student, teacher, targets, temperature):
    if loss == "kd":
        return (inspect.unwrap(kd_rows)(student, teacher, temperature),)
    return inspect.unwrap(dkd_rows)(student, teacher, targets[:, None], temperature)


def values_and_gradients(form, loss, student, teacher, targets, temperature):
    terms = form(loss, student, teacher, targets, temperature)
    # Uneven weights per row and term show a gradient that is scaled wrongly.
    n = len(targets)
    like = {"dtype": terms[0].dtype, "device": terms[0].device}
    weights = [torch.linspace(0.5 + k, 2.0, n, **like) for k in range(len(terms))]
    total = sum((weight * term).sum() for weight, term in zip(weights, terms, strict=True))
    return [*terms, *torch.autograd.grad(total, (student, temperature))]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", ["kd", "dkd"])
@pytest.mark.parametrize("value", [1.0, 4.0, 15.6212])
def test_values_and_gradients_are_those_of_the_readable_form(loss, shape, value, device):
    given = (*rows(), temperature_of(shape, 6, value))
    leaves = [tensor.detach().to(device).requires_grad_(tensor.requires_grad) for tensor in given]
    arguments = (loss, *leaves)
    for actual, expected in zip(
        values_and_gradients(closed, *arguments),
        values_and_gradients(readable, *arguments),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", ["kd", "dkd"])
def test_derivatives_of_first_and_second_order(loss, shape):
    student, teacher, targets = rows(4, 5, scale=1.5)

    def terms(s, t):
        return closed(loss, s, teacher, targets, t)

    inputs = (student, temperature_of(shape, 4))
    assert torch.autograd.gradcheck(terms, inputs)
    assert torch.autograd.gradgradcheck(terms, inputs)


@pytest.mark.parametrize("loss", ["kd", "dkd"])
def test_each_gradient_alone(loss):
    """With a constant T only the student has a gradient; with frozen logits only T has one."""
    student, teacher, targets = rows()
    temperature = temperature_of("scalar", 6)
    together = values_and_gradients(closed, loss, student, teacher, targets, temperature)[-2:]
    frozen = student.detach()
    weight = torch.linspace(0.5, 2.0, 6, dtype=torch.float64)
    other = torch.linspace(1.5, 2.0, 6, dtype=torch.float64)

    def total(s, t):
        terms = closed(loss, s, teacher, targets, t)
        return sum((w * term).sum() for w, term in zip((weight, other), terms, strict=False))

    for t in (2.5, temperature.detach()):
        (alone,) = torch.autograd.grad(total(student, t), student)
        torch.testing.assert_close(alone, together[0], rtol=1e-13, atol=0)
    (alone,) = torch.autograd.grad(total(frozen, temperature), temperature)
    torch.testing.assert_close(alone, together[1], rtol=1e-13, atol=0)
    assert not total(frozen, 2.5).requires_grad


@pytest.mark.parametrize("loss", ["kd", "dkd"])
@pytest.mark.parametrize("scale", [1.0, 3.0, 30.0])
def test_float32_is_as_exact_as_autograd(loss, scale):
    student, teacher, targets = rows(256, 100, scale)
    temperature = temperature_of("per row", 256, 4.0)
    exact = values_and_gradients(readable, loss, student, teacher, targets, temperature)
    single = [x.detach().float() for x in (student, teacher, temperature)]
    s, t, temp = single[0].requires_grad_(), single[1], single[2].requires_grad_()

    def errors(form):
        found = values_and_gradients(form, loss, s, t, targets, temp)
        return [
            ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, exact, strict=True)
        ]

    for ours, theirs in zip(errors(closed), errors(readable), strict=True):
        assert ours < 2.5 * theirs + 1e-7


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", ["kd", "dkd"])
def test_many_rows_are_computed_in_blocks_with_the_same_result(loss, shape):
    n, c = 331, 200
    assert n * c > 2 * CPU_BLOCK * torch.get_num_threads()
    arguments = (loss, *rows(n, c), temperature_of(shape, n))
    for actual, expected in zip(
        values_and_gradients(closed, *arguments),
        values_and_gradients(readable, *arguments),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)


def test_no_rows_at_all():
    student, teacher, targets = rows(0, 10)
    temperature = temperature_of("scalar", 0)
    for loss in ("kd", "dkd"):
        terms = closed(loss, student, teacher, targets, temperature)
        assert all(term.shape == (0,) for term in terms)
        gradients = torch.autograd.grad(sum(term.sum() for term in terms), (student, temperature))
        assert gradients[0].shape == (0, 10)
        assert gradients[1] == 0


@pytest.mark.parametrize(("loss", "copies"), [("kd", 1.0), ("dkd", 2.0)])
def test_temporaries_are_few_times_the_logits(loss, copies):
    """Beyond inputs and the returned gradient: below 3; the readable form of KD needs 6."""
    n, c = 512, 1000
    student, teacher, targets = rows(n, c, dtype=torch.float32)
    temperature = temperature_of("scalar", n, dtype=torch.float32)

    def peak(form):
        def step():
            terms = form(loss, student, teacher, targets, temperature)
            return torch.autograd.grad(sum(term.sum() for term in terms), (student, temperature))

        step()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            gradients = step()
        assert gradients[0].shape == (n, c)
        live, top = 0, 0
        for event in profiler.profiler.kineto_results.events():
            if event.name() == "[memory]":
                live += event.nbytes()
                top = max(top, live)
        return top / (4 * n * c) - 1

    blocks = 8 * CPU_BLOCK * torch.get_num_threads() / (n * c)
    assert peak(closed) < copies + blocks < 3
    assert peak(readable) > 5  # the measurement can see the difference


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["kd", "dkd"])
def test_compiled_as_one_graph(loss):
    student, teacher, targets = rows(8, 10, dtype=torch.float32)
    temperature = temperature_of("scalar", 8, dtype=torch.float32)
    compiled = torch.compile(closed, fullgraph=True, backend="aot_eager")
    arguments = (loss, student, teacher, targets, temperature)
    for actual, expected in zip(
        values_and_gradients(compiled, *arguments),
        values_and_gradients(closed, *arguments),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_functional_transforms_still_work():
    student, teacher, targets = rows()
    gradient = torch.func.grad(lambda s: kd_rows(s, teacher, 4.0).sum())(student.detach())
    (expected,) = torch.autograd.grad(kd_rows(student, teacher, 4.0).sum(), student)
    torch.testing.assert_close(gradient, expected)
    torch.func.grad(lambda s: sum(t.sum() for t in dkd_terms(s, teacher, targets, 4.0)))(
        student.detach()
    )
