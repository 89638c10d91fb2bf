"""The quirks are what public code computes, and nothing else changes."""

import pytest
import torch

from ctkd.errors import ConfigError
from ctkd.losses.dkd import dkd_terms
from ctkd.losses.kd import kd_rows
from ctkd.losses.quirks import QuirkDKD, QuirkKD
from ctkd.testing.checker import ordinary_rows

STUDENT, TEACHER, TARGETS = ordinary_rows(6, 10)
PER_ROW = torch.linspace(2, 9, 6, dtype=torch.float64)[:, None]


def slope(function, temperature):
    """The derivative of the mean in T."""
    t = temperature.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(t).mean(), t)
    return found


def test_a_detached_square_has_the_value_of_kd_and_the_derivative_of_kl_alone():
    objective = QuirkKD(square="detached")
    for t in (PER_ROW, PER_ROW[2, 0]):
        found = objective.terms(STUDENT, TEACHER, TARGETS, t)["kd"]
        torch.testing.assert_close(found, kd_rows(STUDENT, TEACHER, t))
        expected = slope(lambda x, t=t: t**2 * kd_rows(STUDENT, TEACHER, x)[:, None] / x**2, t)
        got = slope(lambda x: objective.terms(STUDENT, TEACHER, TARGETS, x)["kd"], t)
        torch.testing.assert_close(got, expected)


def test_after_the_mean_a_row_no_longer_weighs_its_own_kl():
    found = QuirkKD(square="after_mean").terms(STUDENT, TEACHER, TARGETS, PER_ROW)["kd"]
    kl = kd_rows(STUDENT, TEACHER, PER_ROW) / PER_ROW.squeeze(1) ** 2
    assert found.shape == ()
    torch.testing.assert_close(found, kl.mean() * (PER_ROW**2).mean())
    same = QuirkKD(square="after_mean").terms(STUDENT, TEACHER, TARGETS, torch.tensor(4.0))["kd"]
    torch.testing.assert_close(same, kd_rows(STUDENT, TEACHER, torch.tensor(4.0)).mean())


@pytest.mark.parametrize("form", ["masked", "masked_detached"])
def test_a_masked_dkd_has_the_value_of_dkd_and_another_derivative_in_t(form):
    objective, t = QuirkDKD(form=form), torch.tensor(4.0, dtype=torch.float64)
    found = objective.terms(STUDENT, TEACHER, TARGETS, t)
    for term, expected in zip(found.values(), dkd_terms(STUDENT, TEACHER, TARGETS, t), strict=True):
        torch.testing.assert_close(term, expected)
    derivative = slope(lambda x: objective.terms(STUDENT, TEACHER, TARGETS, x)["nckd"], t)
    right = slope(lambda x: dkd_terms(STUDENT, TEACHER, TARGETS, x)[1], t)
    assert derivative.isnan() if form == "masked" else abs(derivative - right) > 0.1 * abs(right)


def test_an_unknown_quirk_is_an_error():
    with pytest.raises(ConfigError, match=r"QuirkKD\.square = 'none': expected one of graph"):
        QuirkKD(square="none")
    with pytest.raises(ConfigError, match=r"QuirkDKD\.form = 'none': expected one of exact"):
        QuirkDKD(form="none")
