"""WTTM against its equations in plain Python, its limits, and the public form's NaN."""

import math

import pytest
import torch
import torch.nn.functional as F

from ctkd.losses.kd import kd_loss
from ctkd.losses.per_row import cross_entropy_rows
from ctkd.losses.wttm import WTTM, wttm_rows


def rows(n=6, c=10, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, n, c, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(c, (n,), generator=generator)


def reference(student, teacher, gamma):
    """One row in plain Python: U Σ p̂ log(p̂ / q), p̂ = p^γ / U, U = Σ p^γ."""

    def softmax(row):
        exponentials = [math.exp(z) for z in row]
        return [e / math.fsum(exponentials) for e in exponentials]

    powers, q = [p**gamma for p in softmax(teacher)], softmax(student)
    total = math.fsum(powers)
    return total * math.fsum(
        a / total * math.log(a / total / b) for a, b in zip(powers, q, strict=True)
    )


def public_form(student, teacher, gamma):
    """The powers of the probabilities themselves, which underflow."""
    powers = teacher.softmax(dim=1) ** gamma
    total = powers.sum(dim=1)
    log_q = student.log_softmax(dim=1)
    kl = F.kl_div(log_q, powers / total.unsqueeze(1), reduction="none").sum(dim=1)
    return total * kl


@pytest.mark.parametrize("gamma", [0.1, 0.3, 1.0])
def test_the_term_is_that_of_the_equations(gamma):
    student, teacher, targets = rows()
    terms = WTTM()(student, teacher, targets, 1 / gamma)
    expected = [
        reference(s, t, gamma) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(terms["wttm"], expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(terms["wttm"], public_form(student, teacher, gamma))
    torch.testing.assert_close(terms["ce"], cross_entropy_rows(student, targets))


def test_at_temperature_one_it_is_kd_at_temperature_one():
    student, teacher, targets = rows()
    actual = WTTM()(student, teacher, targets, 1.0)["wttm"]
    torch.testing.assert_close(actual, kd_loss(student, teacher, 1.0, reduction="none"))


def test_a_student_that_equals_the_softened_teacher_costs_nothing():
    _, teacher, targets = rows()
    assert WTTM()(teacher / 10.0, teacher, targets, 10.0)["wttm"].abs().max() < 1e-12
    assert WTTM()(teacher, teacher, targets, 10.0)["wttm"].min() > 0.1


def test_the_weight_runs_from_one_to_a_power_of_the_number_of_classes():
    """A teacher that is sure weighs 1, a uniform one C^(1 − γ)."""
    student = rows(1)[0]
    sure, uniform = torch.zeros(2, 1, 10, dtype=torch.float64)
    sure[0, 3] = 1e4
    gamma = 0.25
    log_q = student.log_softmax(dim=1)[0]
    actual = wttm_rows(student, sure, 1 / gamma).item()
    assert actual == pytest.approx(-log_q[3].item())
    kl = -math.log(10) - log_q.mean().item()
    assert wttm_rows(student, uniform, 1 / gamma).item() == pytest.approx(10 ** (1 - gamma) * kl)


def test_shifting_either_networks_logits_changes_nothing():
    student, teacher, targets = rows()
    plain = WTTM()(student, teacher, targets, 5.0)["wttm"]
    shifted = WTTM()(student + 7.0, teacher - 11.0, targets, 5.0)["wttm"]
    torch.testing.assert_close(plain, shifted)


def test_the_public_forms_gradient_for_the_exponent_is_nan_where_this_ones_is_finite():
    teacher, student = torch.zeros(1, 10), torch.zeros(1, 10)
    teacher[0, 0] = 120.0
    gamma = torch.tensor(0.1, requires_grad=True)
    (public,) = torch.autograd.grad(public_form(student, teacher, gamma).sum(), gamma)
    (ours,) = torch.autograd.grad(wttm_rows(student, teacher, 1 / gamma).sum(), gamma)
    assert not public.isfinite()
    assert ours.isfinite()
