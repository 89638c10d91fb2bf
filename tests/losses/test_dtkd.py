"""DTKD against its equations in plain Python, its identities, and maxima that are not positive."""

import math

import pytest
import torch

from ctkd.adversary.schedules import ConstantLambda
from ctkd.distiller import Distiller
from ctkd.errors import ConfigError
from ctkd.losses.dtkd import DTKD, dtkd_temperatures
from ctkd.losses.kd import kd_loss
from ctkd.losses.per_row import cross_entropy_rows
from ctkd.registry import OBJECTIVES
from ctkd.temperature import GlobalTemperature, InstanceTemperature


def rows(n=6, c=10, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, n, c, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(c, (n,), generator=generator)


def reference(student, teacher, t0):
    """One row's dynamic term in plain Python."""
    x, y = max(teacher), max(student)
    teacher_t, student_t = 2 * x / (x + y) * t0, 2 * y / (x + y) * t0

    def softmax(row, temperature):
        exponentials = [math.exp(z / temperature) for z in row]
        return [e / math.fsum(exponentials) for e in exponentials]

    p, q = softmax(teacher, teacher_t), softmax(student, student_t)
    kl = math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return teacher_t * student_t * kl


@pytest.mark.parametrize("t0", [1.0, 4.0, 15.6212])
def test_the_dynamic_term_is_that_of_the_equations(t0):
    student, teacher, targets = rows()
    terms = DTKD()(student, teacher, targets, t0)
    expected = [
        reference(s, t, t0) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(terms["dtkd"], expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(terms["kd"], kd_loss(student, teacher, t0, reduction="none"))
    torch.testing.assert_close(terms["ce"], cross_entropy_rows(student, targets))


def test_the_published_temperatures_equalise_the_softened_maxima():
    student, teacher, _ = rows()
    student_t, teacher_t = dtkd_temperatures(student, teacher, 4.0)
    assert student_t.shape == teacher_t.shape == (6, 1)
    torch.testing.assert_close(student_t + teacher_t, torch.full_like(student_t, 8.0))
    for logits, temperature in ((student, student_t), (teacher, teacher_t)):
        softened = (logits / temperature).max(dim=1).values
        both = student.max(dim=1).values + teacher.max(dim=1).values
        torch.testing.assert_close(softened, both / 8.0)
    # δ = (x − y) / (x + y) · T0 is what the paper's equation 5 says.
    x, y = teacher.max(dim=1, keepdim=True).values, student.max(dim=1, keepdim=True).values
    torch.testing.assert_close(teacher_t - 4.0, (x - y) / (x + y) * 4.0)


def test_with_equal_maxima_it_is_kd_at_the_reference_temperature():
    student, teacher, targets = rows()
    shift = teacher.max(dim=1, keepdim=True).values - student.max(dim=1, keepdim=True).values
    terms = DTKD()(student + shift, teacher, targets, 4.0)
    torch.testing.assert_close(terms["dtkd"], terms["kd"])


def test_equal_logits_cost_nothing():
    student, _, targets = rows()
    terms = DTKD()(student, student, targets, 4.0)
    assert terms["dtkd"].abs().max() < 1e-12
    assert terms["kd"].abs().max() < 1e-12


def test_scaling_logits_and_reference_by_c_scales_the_loss_by_c_squared():
    student, teacher, targets = rows()
    plain = DTKD()(student, teacher, targets, 4.0)["dtkd"]
    scaled = DTKD()(3 * student, 3 * teacher, targets, 12.0)["dtkd"]
    torch.testing.assert_close(scaled, 9 * plain)


def test_a_scaled_student_costs_nothing():
    """Its own temperature takes the scale out: the aim of the method, which KD does not meet."""
    _, teacher, targets = rows()
    terms = DTKD()(0.4 * teacher, teacher, targets, 4.0)
    assert terms["dtkd"].abs().max() < 1e-12
    assert terms["kd"].min() > 1e-2


def test_a_reference_per_row_equals_a_loop_over_rows():
    student, teacher, targets = rows()
    temperature = torch.linspace(1.0, 21.0, 6, dtype=torch.float64).unsqueeze(1)
    together = DTKD()(student, teacher, targets, temperature)["dtkd"]
    loop = [
        DTKD()(student[[i]], teacher[[i]], targets[[i]], temperature[i].item())["dtkd"]
        for i in range(6)
    ]
    torch.testing.assert_close(together, torch.cat(loop))


def test_the_gradient_runs_through_the_students_maximum():
    student, teacher, targets = rows()
    student.requires_grad_()
    (actual,) = torch.autograd.grad(DTKD()(student, teacher, targets, 4.0)["dtkd"].sum(), student)
    for row in range(6):
        for column in (student[row].argmax().item(), student[row].argmin().item()):
            step = torch.zeros_like(student)
            step[row, column] = 1e-5
            with torch.no_grad():
                high, low = (
                    DTKD()(student + sign * step, teacher, targets, 4.0)["dtkd"].sum()
                    for sign in (1, -1)
                )
            assert actual[row, column].item() == pytest.approx((high - low).item() / 2e-5, rel=1e-5)


def test_derivatives():
    student, teacher, targets = rows(3, 4, scale=1.5)
    student, teacher = student + 2.0, teacher + 1.0  # every maximum well above the smallest one
    temperature = torch.full((3, 1), 2.0, dtype=torch.float64, requires_grad=True)
    inputs = (student.requires_grad_(), teacher.requires_grad_(), temperature)
    assert torch.autograd.gradcheck(lambda s, t, temp: DTKD()(s, t, targets, temp)["dtkd"], inputs)


def test_maxima_that_are_not_positive_count_as_the_smallest_one():
    below = torch.tensor([[-3.0, -2.0, -1.0]])
    above = torch.tensor([[-1.0, 0.5, 1.99]])
    student_t, teacher_t = dtkd_temperatures(below, below - 1.0, 4.0)
    assert student_t.item() == teacher_t.item() == 4.0
    student_t, teacher_t = dtkd_temperatures(below, above, 4.0)
    assert teacher_t.item() == pytest.approx(8.0 * 1.99 / 2.0)
    assert student_t.item() == pytest.approx(8.0 * 0.01 / 2.0)
    # Nor may a sum of two maxima of opposite sign come to nothing.
    student_t, teacher_t = dtkd_temperatures(-above, above, 4.0)
    assert 0 < student_t.item() < teacher_t.item() < 8.0


@pytest.mark.parametrize("gap", [0.0, 25.0, 1e4])
@pytest.mark.parametrize("value", [1.0, 42.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_values_and_gradients_stay_finite(gap, value, dtype):
    """Each network sure of one class, of another, of none, or with negative logits throughout."""
    teacher, student = torch.zeros(5, 10, dtype=dtype), torch.zeros(5, 10, dtype=dtype)
    for row, (sure, guess) in enumerate([(0, 0), (0, 1), (1, 0), (0, 2), (2, 0)]):
        teacher[row, sure] = gap
        student[row, guess] = gap
    teacher[4] -= gap + 1
    student[3] -= gap + 1
    student.requires_grad_()
    temperature = torch.tensor(value, requires_grad=True)
    terms = DTKD()(student, teacher, torch.zeros(5, dtype=torch.long), temperature)
    assert all(term.dtype == torch.promote_types(dtype, torch.float32) for term in terms.values())
    sum(term.sum() for term in terms.values()).backward()
    for tensor in (*terms.values(), student.grad, temperature.grad):
        assert tensor.isfinite().all()


def test_half_precision_is_computed_in_float32():
    student, teacher, targets = rows()
    student, teacher = student.bfloat16(), teacher.bfloat16()
    actual = DTKD()(student, teacher, targets, torch.tensor(4.3))
    expected = DTKD()(student.float(), teacher.float(), targets, 4.3)
    for name, term in actual.items():
        torch.testing.assert_close(term, expected[name])


def test_cross_entropy_is_taken_on_the_raw_logits():
    student, teacher, targets = rows()
    terms = DTKD()(student, teacher, targets, 4.0, raw_student_logits=5 * student)
    torch.testing.assert_close(terms["ce"], cross_entropy_rows(5 * student, targets))
    torch.testing.assert_close(terms["dtkd"], DTKD()(student, teacher, targets, 4.0)["dtkd"])


def test_weights_warm_up_by_the_epoch():
    objective = DTKD(dtkd_weight=3.0, kd_weight=0.5, warmup_epochs=20.0)
    assert objective.weights(0.0) == pytest.approx({"ce": 1.0, "dtkd": 0.15, "kd": 0.025})
    assert objective.weights(1.9999999999) == pytest.approx({"ce": 1, "dtkd": 0.45, "kd": 0.075})
    assert objective.weights(19.0) == {"ce": 1.0, "dtkd": 3.0, "kd": 0.5}
    assert DTKD().weights(0.0) == {"ce": 1.0, "dtkd": 3.0, "kd": 1.0}


@pytest.mark.parametrize("parameter", ["ce_weight", "dtkd_weight", "kd_weight", "warmup_epochs"])
@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_settings_out_of_range_are_told(parameter, value):
    with pytest.raises(ConfigError, match=rf"DTKD\.{parameter} = {value}.*>= 0"):
        DTKD(**{parameter: value})


def test_a_missing_teacher_is_told():
    student, teacher, targets = rows()
    with pytest.raises(ValueError, match="teacher_logits = None: DTKD"):
        DTKD()(student, None, targets, 4.0)
    with pytest.raises(ValueError, match="temperature = None: DTKD"):
        DTKD()(student, teacher, targets, None)
    with pytest.raises(ValueError, match="same rows and classes"):
        DTKD()(student, teacher[:, :-1], targets, 4.0)


@pytest.mark.parametrize("name", ["DTKD", "WTTM", "DIST"])
def test_a_learned_temperature_feels_these_objectives_reversed(name):
    """Whether T is one number or one per row: the policy's gradient is −λ times the loss's."""
    student, teacher, targets = rows()
    student, teacher = student.float(), teacher.float()
    objective = OBJECTIVES.get(name)()
    for policy in (GlobalTemperature(), InstanceTemperature(10)):
        distiller = Distiller(policy, ConstantLambda(0.25), objective)
        parameters = list(policy.parameters())
        outcome = distiller(student, teacher, targets, position=0.0)
        actual = torch.autograd.grad(outcome.loss, parameters)
        temperature = policy(student, teacher, 0.0)
        terms = objective(student, teacher, targets, temperature)
        loss = sum(w * terms[term].mean() for term, w in objective.weights(0.0).items())
        for ours, plain in zip(actual, torch.autograd.grad(loss, parameters), strict=True):
            assert ours.isfinite().all()
            torch.testing.assert_close(ours, -0.25 * plain)
        assert any(gradient.abs().max() > 0 for gradient in actual)


def test_it_is_registered():
    assert OBJECTIVES.get("DTKD") is DTKD
    assert DTKD.needs_teacher is True
