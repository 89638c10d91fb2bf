"""Losses of rows against loops in plain Python, and their gradients by finite differences."""

import math
import statistics
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck

from ctkd.registry import OBJECTIVES

ROWS, CLASSES = 6, 5


def logits(seed=0, scale=3.0):
    drawn = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, ROWS, CLASSES, generator=drawn, dtype=torch.float64)
    return student, teacher, torch.randint(CLASSES, (ROWS,), generator=drawn)


def softmax(row, temperature=1.0):
    powers = [math.exp(z / temperature) for z in row]
    return [power / math.fsum(powers) for power in powers]


def kl(p, q):
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def mix(p, q, share):
    return [share * a + (1 - share) * b for a, b in zip(p, q, strict=True)]


# Each takes a row: student's and teacher's logits, the class, the two temperatures.


def kd(s, t, y, ts, tt):
    return {"kd": tt * tt * kl(softmax(t, tt), softmax(s, ts))}


def normkd(s, t, y, ts, tt):
    ts, tt = ts * statistics.stdev(s), tt * statistics.stdev(t)
    return {"kd": tt * tt * kl(softmax(t, tt), softmax(s, ts))}


def reverse_kl(s, t, y, ts, tt):
    return {"kd": tt * tt * kl(softmax(s, ts), softmax(t, tt))}


def jsd(s, t, y, ts, tt, beta):
    p, q = softmax(t, tt), softmax(s, ts)
    m = mix(p, q, beta)
    return {"kd": tt * tt * (beta * kl(p, m) + (1 - beta) * kl(q, m))}


def skewed_kl(s, t, y, ts, tt, alpha, reverse):
    p, q = softmax(t, tt), softmax(s, ts)
    first, second = (q, p) if reverse else (p, q)
    return {"kd": tt * tt * kl(first, mix(first, second, alpha))}


CASES = {
    "KD": ("KD", {}, kd),
    "NormKD": ("NormKD", {}, normkd),
    "ReverseKL": ("ReverseKL", {}, reverse_kl),
    "JSD": ("JSD", {}, partial(jsd, beta=0.5)),
    "JSD 0.2": ("JSD", {"beta": 0.2}, partial(jsd, beta=0.2)),
    "SkewedKL": ("SkewedKL", {}, partial(skewed_kl, alpha=0.1, reverse=False)),
    "SkewedKL reverse": (
        "SkewedKL",
        {"alpha": 0.3, "reverse": True},
        partial(skewed_kl, alpha=0.3, reverse=True),
    ),
}


@pytest.fixture(params=CASES, name="case")
def make_case(request):
    name, settings, loop = CASES[request.param]
    return OBJECTIVES.get(name)(**settings), loop


def temperatures(objective):
    """One for all rows, one for each row, and two for each row where the objective accepts them."""
    by_row = torch.linspace(1.0, 6.0, ROWS, dtype=torch.float64)[:, None]
    both = [(by_row, 0.6 * by_row)] if objective.two_temperatures else []
    return [torch.tensor(4.0, dtype=torch.float64), by_row, *both]


def test_every_term_is_that_of_the_loop(case):
    objective, loop = case
    student, teacher, targets = logits()
    for heat in temperatures(objective):
        student_t, teacher_t = heat if isinstance(heat, tuple) else (heat, heat)
        columns = [x.expand(ROWS, 1).flatten().tolist() for x in (student_t, teacher_t)]
        rows = zip(student.tolist(), teacher.tolist(), targets.tolist(), *columns, strict=True)
        wanted = [loop(*row) for row in rows]
        found = objective(student, teacher, targets, heat)
        assert found.keys() - {"ce"} == wanted[0].keys()
        for name in wanted[0]:
            expected = torch.tensor([row[name] for row in wanted], dtype=torch.float64)
            torch.testing.assert_close(found[name], expected, rtol=1e-10, atol=1e-12)


def test_gradients_in_the_student_and_in_each_temperature_are_those_of_finite_differences(case):
    objective, _ = case
    student, teacher, targets = logits(seed=1)
    weights = objective.weights(1e3)

    def loss(student, *heat):
        heat = heat if len(heat) > 1 else heat[0]
        terms = objective(student, teacher, targets, heat)
        return sum(weight * terms[name].sum() for name, weight in weights.items())

    for heat in temperatures(objective):
        parts = heat if isinstance(heat, tuple) else (heat,)
        leaves = [x.clone().requires_grad_() for x in (student, *parts)]
        assert gradcheck(loss, leaves)
        assert all(found.any() for found in torch.autograd.grad(loss(*leaves), leaves))
