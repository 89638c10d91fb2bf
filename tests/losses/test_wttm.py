"""WTTM against its equations in plain Python, its limits, and the public form's NaN."""

import math

import pytest
import torch
import torch.nn.functional as F

from ctkd.errors import ConfigError
from ctkd.losses.kd import kd_loss
from ctkd.losses.per_row import cross_entropy_rows
from ctkd.losses.wttm import WTTM, wttm_rows
from ctkd.registry import OBJECTIVES


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


def test_a_temperature_per_row_equals_a_loop_over_rows():
    student, teacher, targets = rows()
    temperature = torch.linspace(1.0, 21.0, 6, dtype=torch.float64).unsqueeze(1)
    together = WTTM()(student, teacher, targets, temperature)["wttm"]
    loop = [
        WTTM()(student[[i]], teacher[[i]], targets[[i]], temperature[i].item())["wttm"]
        for i in range(6)
    ]
    torch.testing.assert_close(together, torch.cat(loop))


def test_derivatives_of_first_and_second_order():
    student, teacher, _ = rows(3, 4, scale=1.5)
    temperature = torch.full((3, 1), 2.0, dtype=torch.float64, requires_grad=True)
    inputs = (student.requires_grad_(), teacher.requires_grad_(), temperature)
    assert torch.autograd.gradcheck(wttm_rows, inputs)
    assert torch.autograd.gradgradcheck(wttm_rows, inputs)


@pytest.mark.parametrize("gap", [0.0, 25.0, 1e4])
@pytest.mark.parametrize("value", [1.0, 10.0, 42.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_values_and_gradients_stay_finite(gap, value, dtype):
    teacher, student = torch.zeros(4, 10, dtype=dtype), torch.zeros(4, 10, dtype=dtype)
    for row, (sure, guess) in enumerate([(0, 0), (0, 1), (1, 0), (2, 1)]):
        teacher[row, sure] = gap
        student[row, guess] = -gap if row == 3 else gap
    student.requires_grad_()
    temperature = torch.tensor(value, requires_grad=True)
    terms = WTTM()(student, teacher, torch.zeros(4, dtype=torch.long), temperature)
    assert all(term.dtype == torch.promote_types(dtype, torch.float32) for term in terms.values())
    sum(term.sum() for term in terms.values()).backward()
    for tensor in (*terms.values(), student.grad, temperature.grad):
        assert tensor.isfinite().all()


def test_the_public_forms_gradient_for_the_exponent_is_nan_where_this_ones_is_finite():
    teacher, student = torch.zeros(1, 10), torch.zeros(1, 10)
    teacher[0, 0] = 120.0
    gamma = torch.tensor(0.1, requires_grad=True)
    (public,) = torch.autograd.grad(public_form(student, teacher, gamma).sum(), gamma)
    (ours,) = torch.autograd.grad(wttm_rows(student, teacher, 1 / gamma).sum(), gamma)
    assert not public.isfinite()
    assert ours.isfinite()


def test_half_precision_is_computed_in_float32():
    student, teacher, targets = rows()
    student, teacher = student.bfloat16(), teacher.bfloat16()
    actual = WTTM()(student, teacher, targets, torch.tensor(5.0))
    expected = WTTM()(student.float(), teacher.float(), targets, 5.0)
    for name, term in actual.items():
        torch.testing.assert_close(term, expected[name])


def test_cross_entropy_is_taken_on_the_raw_logits():
    student, teacher, targets = rows()
    terms = WTTM()(student, teacher, targets, 4.0, raw_student_logits=5 * student)
    torch.testing.assert_close(terms["ce"], cross_entropy_rows(5 * student, targets))
    torch.testing.assert_close(terms["wttm"], WTTM()(student, teacher, targets, 4.0)["wttm"])


def test_weights_are_constant():
    objective = WTTM(ce_weight=0.5, wttm_weight=16.0)
    assert objective.weights(0.0) == objective.weights(200.0) == {"ce": 0.5, "wttm": 16.0}


@pytest.mark.parametrize("parameter", ["ce_weight", "wttm_weight"])
@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_settings_out_of_range_are_told(parameter, value):
    with pytest.raises(ConfigError, match=rf"WTTM\.{parameter} = {value}.*>= 0"):
        WTTM(**{parameter: value})


def test_a_missing_teacher_is_told():
    student, teacher, targets = rows()
    with pytest.raises(ValueError, match="teacher_logits = None: WTTM"):
        WTTM()(student, None, targets, 4.0)
    with pytest.raises(ValueError, match="temperature = None: WTTM"):
        WTTM()(student, teacher, targets, None)


def test_it_is_registered():
    assert OBJECTIVES.get("WTTM") is WTTM
    assert WTTM.needs_teacher is True
