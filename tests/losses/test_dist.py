"""DIST against its equations in plain Python, the invariances of a correlation, constant rows."""

import math
import statistics

import pytest
import torch

from ctkd.distiller import Distiller
from ctkd.losses.dist import DIST, pearson
from ctkd.losses.kd import kd_loss
from ctkd.losses.per_row import cross_entropy_rows
from ctkd.temperature import ConstantTemperature


def rows(n=6, c=10, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, n, c, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(c, (n,), generator=generator)


def reference(student, teacher, tau):
    """(inter of each row, intra) in plain Python."""

    def softmax(row):
        exponentials = [math.exp(z / tau) for z in row]
        return [e / math.fsum(exponentials) for e in exponentials]

    q, p = ([softmax(row) for row in logits.tolist()] for logits in (student, teacher))
    inter = [tau**2 * (1 - statistics.correlation(a, b)) for a, b in zip(q, p, strict=True)]
    columns = zip(zip(*q, strict=True), zip(*p, strict=True), strict=True)
    intra = statistics.fmean(statistics.correlation(a, b) for a, b in columns)
    return inter, tau**2 * (1 - intra)


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_the_terms_are_those_of_the_equations(tau):
    student, teacher, targets = rows()
    terms = DIST()(student, teacher, targets, tau)
    inter, intra = reference(student, teacher, tau)
    # Up to the public code's epsilon of 1e-8, which it adds to the product of the norms.
    expected = torch.tensor(inter, dtype=torch.float64)
    torch.testing.assert_close(terms["inter"], expected, rtol=1e-5, atol=1e-6)
    assert terms["intra"].dim() == 0
    assert terms["intra"].item() == pytest.approx(intra, rel=1e-5)
    torch.testing.assert_close(terms["ce"], cross_entropy_rows(student, targets))


def test_a_correlation_does_not_see_scale_or_shift():
    x, y = torch.rand(2, 6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for dim in (0, 1):
        plain = pearson(x, y, dim, epsilon=0.0)
        torch.testing.assert_close(pearson(3 * x + 5, 0.1 * y - 2, dim, epsilon=0.0), plain)
        torch.testing.assert_close(pearson(-x, y, dim, epsilon=0.0), -plain)
        torch.testing.assert_close(pearson(x, x, dim), torch.ones(x.shape[1 - dim]).double())


def test_the_loss_does_not_see_shifts_and_scales_with_the_temperature():
    student, teacher, targets = rows()
    plain = DIST()(student, teacher, targets, 4.0)
    shifted = DIST()(student + 7.0, teacher - 11.0, targets, 4.0)
    scaled = DIST()(3 * student, 3 * teacher, targets, 12.0)
    for name in ("inter", "intra"):
        torch.testing.assert_close(shifted[name], plain[name])
        torch.testing.assert_close(scaled[name], 9 * plain[name])


def test_equal_logits_cost_nothing():
    student, _, targets = rows()
    terms = DIST()(student, student, targets, 4.0)
    assert terms["inter"].abs().max() < 1e-4
    assert terms["intra"].abs() < 1e-4


def test_a_student_between_the_teacher_and_uniform_costs_nothing():
    """Its probabilities are an affine map of the teacher's: where KL still pulls, DIST does not."""
    _, teacher, targets = rows()
    mixed = (0.3 * teacher.softmax(dim=1) + 0.7 / 10).log()
    terms = DIST()(mixed, teacher, targets, 1.0)
    assert terms["inter"].abs().max() < 1e-4
    assert terms["intra"].abs() < 1e-4
    assert kd_loss(mixed, teacher, 1.0) > 0.1


def test_opposite_predictions_cost_twice_the_square():
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    terms = DIST()(-teacher, teacher, torch.tensor([0, 1]), 2.0)
    assert terms["inter"].tolist() == pytest.approx([8.0, 8.0])
    assert terms["intra"].item() == pytest.approx(8.0)


def test_only_the_inter_term_is_row_wise():
    student, teacher, targets = rows()
    whole = DIST()(student, teacher, targets, 4.0)
    part = DIST()(student[:3], teacher[:3], targets[:3], 4.0)
    torch.testing.assert_close(whole["inter"][:3], part["inter"])
    assert whole["intra"].item() != pytest.approx(part["intra"].item(), rel=1e-3)


def test_a_temperature_per_row():
    student, teacher, targets = rows()
    same = DIST()(student, teacher, targets, torch.full((6, 1), 4.0, dtype=torch.float64))
    plain = DIST()(student, teacher, targets, 4.0)
    for name in ("inter", "intra"):
        torch.testing.assert_close(same[name], plain[name])
    temperature = torch.linspace(1.0, 21.0, 6, dtype=torch.float64).unsqueeze(1)
    together = DIST()(student, teacher, targets, temperature)["inter"]
    loop = [
        DIST()(student[[i]], teacher[[i]], targets[[i]], temperature[i].item())["inter"]
        for i in range(6)
    ]
    torch.testing.assert_close(together, torch.cat(loop))


def test_one_row_alone_has_no_intra_class_relation():
    student, teacher, targets = rows(1)
    student.requires_grad_()
    term = DIST()(student, teacher, targets, 2.0)["intra"]
    assert term.item() == 4.0
    (gradient,) = torch.autograd.grad(term, student)
    assert (gradient == 0).all()


def test_the_distiller_weights_the_batch_term_by_the_parts_share():
    student, teacher, targets = rows()
    distiller = Distiller(ConstantTemperature(4.0), None, DIST(1.0, 0.0, 3.0)).double()
    distiller.checks_rows = False  # as in a run: the other two rows have no teacher
    outcome = distiller(student[:4], teacher[:4], targets[:4], position=0.0, total_rows=6)
    terms = DIST()(student[:4], teacher[:4], targets[:4], 4.0)
    expected = terms["ce"].sum() / 6 + 3 * terms["intra"] * 4 / 6
    torch.testing.assert_close(outcome.loss, expected)


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_a_uniform_student_gets_no_gradient_from_a_correlation(classes):
    """Equal logits have no correlation; a division by epsilon would give gradients above 1e4."""
    student = torch.full((4, classes), 0.3, requires_grad=True)
    _, teacher, targets = rows(4, classes)
    terms = DIST()(student, teacher.float(), targets, 1.0)
    assert terms["inter"].tolist() == [1.0] * 4
    (gradient,) = torch.autograd.grad(terms["inter"].sum() + terms["intra"], student)
    assert (gradient == 0).all()
