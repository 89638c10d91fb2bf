"""Sampled rows: unbiased in the loss and in dL/dT, and exact at the eight temperatures."""

import pytest
import torch

from ctkd.losses.kd import kd_loss
from ctkd.losses.sampled import NODES, SampledKD, draw_rows, draws_of, log_z_at, sampled_kd_rows

REDRAWS, DRAWS, ROWS = 2000, 16, 3


def logits(rows=ROWS, columns=40):
    drawn = torch.Generator().manual_seed(0)
    teacher = 3 * torch.randn(rows, columns, generator=drawn, dtype=torch.float64)
    return teacher + torch.randn(rows, columns, generator=drawn, dtype=torch.float64), teacher


@pytest.fixture(scope="module")
def redrawn():
    """The rows of 2,000 redraws, [2000 · ROWS, numbers]."""
    _, teacher = logits()
    drawn = torch.Generator().manual_seed(1)
    return draw_rows(teacher.repeat(REDRAWS, 1), DRAWS, drawn)


@pytest.mark.parametrize("temperature", [1.0, 1.5, 2.0, 3.0])
def test_the_mean_of_redraws_is_the_truth(redrawn, temperature):
    student, teacher = logits()
    heat = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    truth = kd_loss(student, teacher, heat)
    (slope,) = torch.autograd.grad(truth, heat)
    each = torch.full((REDRAWS * ROWS, 1), temperature, dtype=torch.float64, requires_grad=True)
    found = sampled_kd_rows(student.repeat(REDRAWS, 1), redrawn, each)
    (slopes,) = torch.autograd.grad(found.sum(), each)
    assert (found >= 0).all()
    for values, expected in ((found, truth), (slopes, slope)):
        means = values.detach().view(REDRAWS, ROWS).mean(1)
        error = means.std() / REDRAWS**0.5
        assert abs(means.mean() - expected) < 3 * error
        assert error < 0.02 * truth


def test_the_gradient_in_the_student_is_unbiased(redrawn):
    student, teacher = logits()
    student.requires_grad_()
    (truth,) = torch.autograd.grad(kd_loss(student, teacher, 2.0), student)
    found = sampled_kd_rows(student.repeat(REDRAWS, 1), redrawn, 2.0).mean()
    (gradient,) = torch.autograd.grad(found, student)
    assert (gradient - truth).norm() < 0.1 * truth.norm()


def test_log_z_is_exact_at_eight_temperatures_and_close_between():
    _, teacher = logits(20)
    draws = draws_of(draw_rows(teacher, 2))
    for number, node in enumerate(NODES):
        heat = torch.tensor(node, dtype=torch.float64, requires_grad=True)
        found = log_z_at(draws, heat)
        torch.testing.assert_close(found, (teacher / node).logsumexp(1, keepdim=True))
        slope = -draws.means[:, number].sum() / node**2
        torch.testing.assert_close(torch.autograd.grad(found.sum(), heat)[0], slope)
    for between in (1.1, 1.7, 2.2, 3.5, 5.0):
        exact = (teacher / between).logsumexp(1, keepdim=True)
        assert (log_z_at(draws, between) - exact).abs().max() < 1e-3


def test_a_student_that_agrees_has_no_loss_and_no_gradient():
    _, teacher = logits()
    student = teacher.clone().requires_grad_()
    rows = draw_rows(teacher, 8)
    terms = SampledKD()(student, rows, torch.zeros(ROWS).long(), torch.tensor(2.0))
    assert terms["kd"].abs().max() < 1e-12
    assert torch.autograd.grad(terms["kd"].sum(), student)[0].abs().max() < 1e-12
