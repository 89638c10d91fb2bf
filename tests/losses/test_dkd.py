"""`dkd_loss` and its terms against their definition, and against the public form's NaN."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ctkd.losses.dkd import dkd_loss, dkd_terms
from ctkd.losses.kd import kd_loss


def rows(n=6, c=10, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(n, c, generator=generator, dtype=torch.float64)
    teacher = scale * torch.randn(n, c, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(c, (n,), generator=generator)


def reference(student, teacher, target, temperature):
    """(TCKD, NCKD) of one row in plain Python, T² inside."""

    def softmax(row):
        exponentials = [math.exp(z / temperature) for z in row]
        return [e / math.fsum(exponentials) for e in exponentials]

    def kl(p, q):
        return temperature**2 * math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    p, q = softmax(teacher), softmax(student)
    rest = [i for i in range(len(p)) if i != target]
    rest_p, rest_q = (math.fsum(x[i] for i in rest) for x in (p, q))
    tckd = kl([p[target], rest_p], [q[target], rest_q])
    return tckd, kl([p[i] / rest_p for i in rest], [q[i] / rest_q for i in rest])


def public_form(student, teacher, targets, temperature):
    """The public code: −1000 on the target's logit, and probabilities from a softmax."""
    mask = F.one_hot(targets, student.shape[1]).to(student)

    def two_way(logits):
        p = (logits / temperature).softmax(1)
        return torch.stack([(p * mask).sum(1), (p * (1 - mask)).sum(1)], dim=1)

    tckd = F.kl_div(two_way(student).log(), two_way(teacher), reduction="sum")
    log_q = (student / temperature - 1000 * mask).log_softmax(1)
    nckd = F.kl_div(log_q, (teacher / temperature - 1000 * mask).softmax(1), reduction="sum")
    return tckd * temperature**2, nckd * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 4.0, 15.6212])
def test_terms_are_those_of_the_definition(temperature):
    student, teacher, targets = rows()
    actual = torch.stack(dkd_terms(student, teacher, targets, temperature), dim=1)
    expected = [
        reference(s, t, y, temperature)
        for s, t, y in zip(student.tolist(), teacher.tolist(), targets.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0
    )


def test_kl_is_tckd_and_the_share_of_the_rest_times_nckd():
    student, teacher, targets = rows()
    for temperature in (1.0, 4.0):
        tckd, nckd = dkd_terms(student, teacher, targets, temperature)
        p = (teacher / temperature).softmax(1).gather(1, targets.unsqueeze(1)).squeeze(1)
        kl = kd_loss(student, teacher, temperature, reduction="none")
        torch.testing.assert_close(tckd + (1 - p) * nckd, kl, rtol=1e-12, atol=1e-14)


def test_loss_weights_the_terms_and_reduces_over_rows():
    student, teacher, targets = rows()
    tckd, nckd = dkd_terms(student, teacher, targets, 4.0)
    each = 0.7 * tckd + 2.5 * nckd
    for reduction, expected in (("none", each), ("sum", each.sum()), ("mean", each.mean())):
        actual = dkd_loss(student, teacher, targets, 4.0, alpha=0.7, beta=2.5, reduction=reduction)
        torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(dkd_loss(student, teacher, targets, 4.0), (tckd + 8 * nckd).mean())


def test_two_classes_have_no_nckd():
    student, teacher, targets = rows(c=2)
    student.requires_grad_()
    temperature = torch.tensor(4.0, requires_grad=True)
    tckd, nckd = dkd_terms(student, teacher, targets, temperature)
    assert (nckd == 0).all()
    gradients = torch.autograd.grad(nckd.sum(), (student, temperature), retain_graph=True)
    assert all((gradient == 0).all() for gradient in gradients)
    torch.testing.assert_close(tckd, kd_loss(student, teacher, 4.0, reduction="none"))


@pytest.mark.parametrize("value", [1.0, 21.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_values_of_one_hot_softmaxes(value, dtype):
    """The teacher is sure of the target; a student agrees, is sure of another class, or uniform."""
    teacher, student = torch.zeros(3, 10, dtype=dtype), torch.zeros(3, 10, dtype=dtype)
    teacher[:, 0] = student[0, 0] = student[1, 1] = 1e4
    gap = teacher[0, 0].item()  # rounded by bf16
    tckd, _ = dkd_terms(student, teacher, torch.zeros(3, dtype=torch.long), value)
    expected = [0.0, value * gap, value**2 * math.log(10)]  # log(1 − q) is the gap over T
    assert tckd.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("gap", "value_is_nan"), [(3.0, False), (120.0, True)])
def test_the_public_form_has_nan_gradients_where_dkd_loss_has_none(gap, value_is_nan):
    """The mask makes T's gradient NaN at ordinary logits, and the loss too from a gap of 110 on."""
    student, teacher = torch.zeros(2, 10), torch.zeros(2, 10)
    student[:, 0] = gap
    teacher[:, 0] = gap
    targets = torch.zeros(2, dtype=torch.long)
    temperature = torch.tensor(1.0, requires_grad=True)
    tckd, nckd = public_form(student, teacher, targets, temperature)
    assert bool(tckd.isnan()) is value_is_nan
    (gradient,) = torch.autograd.grad(tckd + nckd, temperature)
    assert gradient.isnan()
    (gradient,) = torch.autograd.grad(dkd_loss(student, teacher, targets, temperature), temperature)
    assert gradient.isfinite()


def test_equals_the_public_form_at_ordinary_logits():
    student, teacher, targets = rows()
    expected = public_form(student, teacher, targets, 4.0)
    for actual, term in zip(dkd_terms(student, teacher, targets, 4.0), expected, strict=True):
        torch.testing.assert_close(actual.sum(), term)


def test_derivatives_of_first_and_second_order():
    student, teacher, targets = rows(3, 4, scale=1.5)
    temperature = torch.full((3, 1), 2.0, dtype=torch.float64, requires_grad=True)
    inputs = (student.requires_grad_(), teacher.requires_grad_(), temperature)

    def terms(s, t, temp):
        return dkd_terms(s, t, targets, temp)

    assert torch.autograd.gradcheck(terms, inputs)
    assert torch.autograd.gradgradcheck(terms, inputs)


@pytest.mark.parametrize(
    ("classes", "targets", "temperature", "reduction", "message"),
    [
        (1, torch.zeros(4, dtype=torch.long), 4.0, "mean", "1 classes.*at least 2"),
        (5, torch.zeros(3, dtype=torch.long), 4.0, "mean", r"targets.*\[3\].*\[4\]"),
        (5, torch.zeros(4, 5), 4.0, "mean", r"targets.*\[4, 5\].*4 class indices"),
        (5, torch.zeros(4), 4.0, "mean", "targets is torch.float32.*class indices"),
        (5, torch.zeros(4, dtype=torch.long), 0.0, "mean", "temperature = 0.0"),
        (5, torch.zeros(4, dtype=torch.long), 4.0, "median", "'median'.*mean, sum, none"),
    ],
)
def test_mistakes_are_errors(classes, targets, temperature, reduction, message):
    logits = torch.zeros(4, classes)
    with pytest.raises(ValueError, match=message):
        dkd_loss(logits, logits, targets, temperature, reduction=reduction)


@settings(deadline=None, max_examples=50)
@given(
    n=st.integers(1, 5),
    c=st.integers(2, 12),
    scale=st.sampled_from([1e-3, 1.0, 30.0, 3e3]),
    value=st.floats(1.0, 21.0),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 10**6),
)
def test_properties(n, c, scale, value, dtype, seed):
    student, teacher, targets = rows(n, c, scale, seed)
    student, teacher = student.to(dtype).requires_grad_(), teacher.to(dtype).requires_grad_()
    temperature = torch.tensor(value, requires_grad=True)
    tckd, nckd = dkd_terms(student, teacher, targets, temperature)
    (tckd + nckd).sum().backward()
    for tensor in (tckd, nckd, student.grad, teacher.grad, temperature.grad):
        assert tensor.isfinite().all()
    rounding = torch.finfo(tckd.dtype).eps * 4 * c * value * (value + 4 * scale + 10)
    assert min(tckd.min(), nckd.min()) >= -rounding
    with torch.no_grad():
        # NCKD does not depend on the target's logit; no term depends on the order of the classes.
        moved = student.scatter(1, targets.unsqueeze(1), 5.0)
        again = dkd_terms(moved, teacher, targets, temperature)[1]
        torch.testing.assert_close(again, nckd, rtol=1e-4, atol=rounding)
        if dtype == torch.float64:
            order = torch.randperm(c, generator=torch.Generator().manual_seed(seed))
            renamed = order.argsort()[targets]
            again = dkd_terms(student[:, order], teacher[:, order], renamed, temperature)
            for term, expected in zip(again, (tckd, nckd), strict=True):
                torch.testing.assert_close(term, expected, rtol=1e-9, atol=1e-9 * value**2)
