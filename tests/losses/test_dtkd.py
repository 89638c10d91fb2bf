"""DTKD against its equations in plain Python, its identities, and maxima that are not positive."""

import math

import pytest
import torch

from ctkd.losses.dtkd import DTKD, dtkd_temperatures
from ctkd.losses.kd import kd_loss
from ctkd.losses.per_row import cross_entropy_rows


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


def test_weights_warm_up_by_the_epoch():
    objective = DTKD(dtkd_weight=3.0, kd_weight=0.5, warmup_epochs=20.0)
    assert objective.weights(0.0) == pytest.approx({"ce": 1.0, "dtkd": 0.15, "kd": 0.025})
    assert objective.weights(1.9999999999) == pytest.approx({"ce": 1, "dtkd": 0.45, "kd": 0.075})
    assert objective.weights(19.0) == {"ce": 1.0, "dtkd": 3.0, "kd": 0.5}
    assert DTKD().weights(0.0) == {"ce": 1.0, "dtkd": 3.0, "kd": 1.0}
