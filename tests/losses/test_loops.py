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


def abkd(s, t, y, ts, tt, a=0.8, b=0.3):
    total = 0.0
    for p, q in zip(softmax(t, tt), softmax(s, ts), strict=True):
        total += p**a * q**b - a / (a + b) * p ** (a + b) - b / (a + b) * q ** (a + b)
    return {"kd": -total / (a * b)}


def eakd(s, t, y, ts, tt, h_max):
    h_s, h_t = (-math.fsum(p * math.log(p) for p in softmax(row, 3.0)) for row in (s, t))
    return {"kd": (h_t + h_t * h_s / h_max) / 2 * tt * tt * kl(softmax(t, tt), softmax(s, ts))}


def without(row, removed):
    return [z for c, z in enumerate(row) if c not in removed]


def nkd(s, t, y, ts, tt):
    p, q = (softmax(without(row, {y}), ts) for row in (t, s))
    nontarget = -math.fsum(a * math.log(b) for a, b in zip(p, q, strict=True))
    return {"target": -softmax(t)[y] * math.log(softmax(s)[y]), "nontarget": ts * ts * nontarget}


def ttm(s, t, y, ts, tt):
    powers = [p ** (1 / tt) for p in softmax(t)]
    return {"ttm": kl([u / math.fsum(powers) for u in powers], softmax(s))}


def rld(s, t, y, ts, tt, same_t):
    alpha_t = tt if same_t else 1.0
    top, true = max(softmax(t, alpha_t)), softmax(s, alpha_t)[y]
    removed = {c for c, z in enumerate(t) if z >= t[y]}
    below = 0.0
    if len(removed) < len(t):
        below = kl(softmax(without(t, removed), tt), softmax(without(s, removed), tt))
    return {
        "confidence": alpha_t**2 * kl([top, 1 - top], [true, 1 - true]),
        "below_target": tt * tt * below,
    }


def swap(s, t, y, ts, tt):
    t, top = list(t), t.index(max(t))
    t[top], t[y] = t[y], t[top]
    return kd(s, t, y, ts, tt)


def rc(s, t, y, ts, tt):
    corrected = list(s)
    corrected[y] += max(s)
    return {"kd": kd(s, t, y, ts, tt)["kd"], "rc": kd(s, corrected, y, ts, tt)["kd"]}


CASES = {
    "KD": ("KD", {}, kd),
    "NormKD": ("NormKD", {}, normkd),
    "ReverseKL": ("ReverseKL", {}, reverse_kl),
    "JSD": ("JSD", {}, partial(jsd, beta=0.5)),
    "JSD 0.2": ("JSD", {"beta": 0.2}, partial(jsd, beta=0.2)),
    "SkewedKL": ("SkewedKL", {}, partial(skewed_kl, alpha=0.1, reverse=False)),
    "ABKD": ("ABKD", {}, abkd),
    "EAKD": ("EAKD", {}, partial(eakd, h_max=math.log(CLASSES))),
    "EAKD as published": ("EAKD", {"max_entropy": 100.0}, partial(eakd, h_max=100.0)),
    "NKD": ("NKD", {}, nkd),
    "TTM": ("TTM", {}, ttm),
    "RLD": ("RLD", {}, partial(rld, same_t=False)),
    "RLD, one T": ("RLD", {"alpha_temperature": None}, partial(rld, same_t=True)),
    "SWAP": ("SWAP", {}, swap),
    "RC": ("RC", {}, rc),
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
        fixed = [student] if objective.detaches else []  # tested below
        moved = leaves[len(fixed) :]
        assert gradcheck(lambda *leaves, fixed=fixed: loss(*fixed, *leaves), moved)
        assert all(found.any() for found in torch.autograd.grad(loss(*leaves), leaves))


def gradient(term, student):
    return torch.autograd.grad(term.sum(), student)[0]


def test_the_weights_of_eakd_are_constants_of_the_step():
    student, teacher, targets = logits()
    student.requires_grad_()
    kd, weighted = (OBJECTIVES.get(name)() for name in ("KD", "EAKD"))
    plain = gradient(kd(student, teacher, targets, 4.0)["kd"], student)
    found = gradient(weighted(student, teacher, targets, 4.0)["kd"], student)
    ratio = (
        weighted(student, teacher, targets, 1.0)["kd"] / kd(student, teacher, targets, 1.0)["kd"]
    )
    torch.testing.assert_close(found, ratio.detach()[:, None] * plain)


def test_the_corrected_logits_of_rc_are_constants_of_the_step():
    student, teacher, targets = logits()
    corrected = student.clone()
    corrected[range(ROWS), targets] += student.amax(dim=1)
    student.requires_grad_()
    found = gradient(OBJECTIVES.get("RC")()(student, teacher, targets, 4.0)["rc"], student)
    wanted = OBJECTIVES.get("KD")()(student, corrected, targets, 4.0)["kd"]
    torch.testing.assert_close(found, gradient(wanted, student))


def test_rld_keeps_what_the_teacher_ranks_below_the_true_class():
    objective = OBJECTIVES.get("RLD")()
    teacher = torch.tensor([[3.0, 2.0, 1.0, 0.0]]).expand(4, 4)
    student = torch.tensor([[0.0, 1.0, -1.0, 2.0]]).expand(4, 4)
    found = objective(student, teacher, torch.arange(4), 1.0)["below_target"]
    p, q = (softmax(row[0].tolist()[1:]) for row in (teacher, student))
    assert found[0].item() == pytest.approx(kl(p, q), rel=1e-5)
    assert found[1].item() > 0
    assert found[2:].tolist() == [0.0, 0.0]  # one class below the true one, and none
