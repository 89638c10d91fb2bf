"""`kd_loss` against mathematics: values, derivatives, limits, and logits that overflow softmax."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ctkd.losses.kd import kd_loss


def rows(n=6, c=10, scale=3.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(n, c, generator=generator, dtype=dtype)
    teacher = scale * torch.randn(n, c, generator=generator, dtype=dtype)
    return student, teacher


def reference(student, teacher, temperature):
    """One row's loss in plain Python: T² Σ p (log p − log q)."""

    def softmax(row):
        exponentials = [math.exp(z / temperature) for z in row]
        return [e / math.fsum(exponentials) for e in exponentials]

    p, q = softmax(teacher), softmax(student)
    return temperature**2 * math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def public_form(student, teacher, temperature):
    """The form of most public code; its gradient in T is NaN where a probability is 0."""
    p = F.softmax(teacher / temperature, dim=1)
    log_q = F.log_softmax(student / temperature, dim=1)
    return F.kl_div(log_q, p, reduction="batchmean") * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 4.0, 15.6212])
def test_values_are_those_of_the_definition(temperature):
    student, teacher = rows()
    expected = [
        reference(s, t, temperature)
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    actual = kd_loss(student, teacher, temperature, reduction="none")
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0
    )


def test_two_classes_against_a_uniform_student_is_log_2_minus_the_entropy():
    teacher = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)  # p = 3/4, 1/4
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    loss = kd_loss(torch.zeros(1, 2, dtype=torch.float64), teacher, 1.0)
    assert loss.item() == pytest.approx(math.log(2.0) - entropy, rel=1e-14)


def test_equals_the_public_form_at_ordinary_logits():
    student, teacher = rows()
    torch.testing.assert_close(kd_loss(student, teacher, 4.0), public_form(student, teacher, 4.0))


@pytest.mark.parametrize("temperature", [1.0, 2.5, 15.6212])
def test_gradient_for_the_student_is_t_times_q_minus_p(temperature):
    student, teacher = rows()
    student.requires_grad_()
    kd_loss(student, teacher, temperature, reduction="sum").backward()
    q, p = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    torch.testing.assert_close(student.grad, temperature * (q - p).detach(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("value", [1.0, 2.5, 15.6212])
def test_derivative_for_t_is_its_closed_form(value):
    """dL/dT = 2T·KL − (E_q z_s − E_p z_s) + Cov_p(z_t, z_s − z_t)/T, per row."""
    student, teacher = rows()
    temperature = torch.full((6, 1), value, dtype=torch.float64, requires_grad=True)
    loss = kd_loss(student, teacher, temperature, reduction="none")
    (actual,) = torch.autograd.grad(loss.sum(), temperature)
    p, q = (teacher / value).softmax(1), (student / value).softmax(1)

    def mean(x):
        return (p * x).sum(1)

    difference = student - teacher
    covariance = mean(teacher * difference) - mean(teacher) * mean(difference)
    expected = 2 * loss / value - ((q * student).sum(1) - mean(student)) + covariance / value
    torch.testing.assert_close(actual.squeeze(1), expected.detach(), rtol=0, atol=1e-12)


def test_t_squared_is_in_the_graph():
    student, teacher = rows()
    temperature = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    (whole,) = torch.autograd.grad(kd_loss(student, teacher, temperature), temperature)
    step = 1e-5
    rise = kd_loss(student, teacher, 4.0 + step) - kd_loss(student, teacher, 4.0 - step)
    assert whole.item() == pytest.approx(rise.item() / (2 * step), rel=1e-8)
    kl = kd_loss(student, teacher, temperature) / temperature**2
    (detached,) = torch.autograd.grad(16.0 * kl, temperature)
    assert detached.item() * whole.item() < 0  # without T² in the graph T moves the other way


@pytest.mark.parametrize("c", [0.5, 3.0])
def test_scaling_logits_and_temperature_scales_the_loss_by_the_square(c):
    student, teacher = rows()
    actual = kd_loss(c * student, c * teacher, c * 4.0, reduction="none")
    expected = c**2 * kd_loss(student, teacher, 4.0, reduction="none")
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


def test_large_temperature_limit_and_its_first_order_term():
    """Centered logits, δ = z_s − z_t: L = ‖δ‖²/2C + mean[δ²(z_s + 2 z_t)]/6T + O(T⁻²)."""
    student, teacher = (z - z.mean(1, keepdim=True) for z in rows(scale=1.0))
    delta = student - teacher
    limit = delta.square().sum(1) / (2 * 10)
    first = (delta.square() * (student + 2 * teacher)).mean(1) / 6
    for temperature in (1e2, 1e3):
        actual = kd_loss(student, teacher, temperature, reduction="none")
        remainder = actual - limit - first / temperature
        assert remainder.abs().max() < 10 / temperature**2
        # The remainder's bound means something: without the first-order term it is exceeded.
        assert (actual - limit).abs().max() > 0.05 / temperature


@pytest.mark.parametrize("value", [1.0, 4.0, 21.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_values_of_one_hot_softmaxes(value, dtype):
    """The teacher is sure of class 0. A student is sure of class 1, uniform, or agrees."""
    teacher, student = torch.zeros(3, 10, dtype=dtype), torch.zeros(3, 10, dtype=dtype)
    teacher[:, 0] = student[0, 1] = student[2, 0] = 1e4
    gap = teacher[0, 0].item()  # rounded by bf16
    temperature = torch.full((3, 1), value, dtype=torch.float64, requires_grad=True)
    loss = kd_loss(student, teacher, temperature, reduction="none")
    expected = torch.tensor([value * gap, value**2 * math.log(10), 0.0], dtype=torch.float64)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    (slope,) = torch.autograd.grad(loss.sum(), temperature)
    assert slope[1].item() == pytest.approx(2 * value * math.log(10), rel=1e-5)


def test_the_public_form_has_nan_gradients_where_kd_loss_has_none():
    teacher = torch.zeros(2, 10)
    teacher[:, 0] = 110.0
    student = torch.zeros(2, 10)
    gradients = []
    for form in (public_form, kd_loss):
        temperature = torch.tensor(1.0, requires_grad=True)
        gradients += torch.autograd.grad(form(student, teacher, temperature), temperature)
    assert gradients[0].isnan()
    # L = T² log C once the teacher is one-hot.
    assert gradients[1].item() == pytest.approx(2 * math.log(10), rel=1e-5)


def test_a_half_precision_teacher_does_not_lower_the_precision_of_the_student():
    student, teacher = rows()
    loss = kd_loss(student.float(), teacher.bfloat16(), 4.0, "none")
    torch.testing.assert_close(
        loss, kd_loss(student.float(), teacher.bfloat16().float(), 4.0, "none")
    )
    assert kd_loss(student, teacher.float(), torch.tensor(4.0)).dtype == torch.float64


def test_autocast_does_not_change_the_result():
    student, teacher = rows(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = kd_loss(student, teacher, torch.tensor(4.0))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, kd_loss(student, teacher, 4.0))


def test_all_spellings_of_one_temperature_agree():
    student, teacher = rows()
    expected = kd_loss(student, teacher, 4.0)
    for temperature in (4, torch.tensor(4.0), torch.tensor([4.0]), torch.full((6, 1), 4.0)):
        assert kd_loss(student, teacher, temperature) == expected


def test_reductions():
    student, teacher = rows()
    each = kd_loss(student, teacher, 4.0, reduction="none")
    assert each.shape == (6,)
    torch.testing.assert_close(kd_loss(student, teacher, 4.0), each.mean())
    torch.testing.assert_close(kd_loss(student, teacher, 4.0, "sum"), each.sum())


@pytest.mark.parametrize("shape", [(), (4, 1)])
def test_derivatives_of_first_and_second_order(shape):
    student, teacher = (z.requires_grad_() for z in rows(4, 5, scale=1.5))
    temperature = torch.full(shape, 2.0, dtype=torch.float64, requires_grad=True)
    inputs = (student, teacher, temperature)
    assert torch.autograd.gradcheck(lambda *x: kd_loss(*x, reduction="none"), inputs)
    assert torch.autograd.gradgradcheck(lambda *x: kd_loss(*x, reduction="none"), inputs)


@pytest.mark.parametrize(
    ("student", "teacher", "temperature", "reduction", "message"),
    [
        ((4, 5), (4, 6), 4.0, "mean", r"\[4, 5\].*\[4, 6\]"),
        ((5,), (5,), 4.0, "mean", r"student_logits.*\[5\].*\[N, C\]"),
        ((2, 4, 5), (2, 4, 5), 4.0, "mean", r"\[2, 4, 5\].*\[N, C\]"),
        ((4, 5), (4, 5), 0.0, "mean", r"temperature = 0\.0.*> 0"),
        ((4, 5), (4, 5), -1, "mean", r"temperature = -1.*> 0"),
        ((4, 5), (4, 5), math.nan, "mean", r"temperature = nan.*> 0"),
        ((4, 5), (4, 5), torch.ones(4), "mean", r"\[4\].*\[4, 1\].*unsqueeze"),
        ((4, 5), (4, 5), torch.ones(1, 5), "mean", r"\[1, 5\]"),
        ((4, 5), (4, 5), 4.0, "batchmean", r"'batchmean'.*mean, sum, none"),
    ],
)
def test_mistakes_are_errors(student, teacher, temperature, reduction, message):
    with pytest.raises(ValueError, match=message):
        kd_loss(torch.zeros(student), torch.zeros(teacher), temperature, reduction)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 5),
    c=st.integers(1, 12),
    scale=st.sampled_from([1e-3, 1.0, 30.0, 1e4]),
    value=st.floats(1.0, 21.0),
    per_row=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 10**6),
)
def test_properties(n, c, scale, value, per_row, dtype, seed):
    student, teacher = (
        z.clamp(-6e4, 6e4).to(dtype).requires_grad_() for z in rows(n, c, scale, seed)
    )
    temperature = torch.full((n, 1) if per_row else (), value, requires_grad=True)
    loss = kd_loss(student, teacher, temperature, reduction="none")
    assert loss.shape == (n,)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    loss.sum().backward()
    for tensor in (loss, student.grad, teacher.grad, temperature.grad):
        assert tensor.isfinite().all()
    # Never negative except for rounding, which is relative to the largest log-probability.
    rounding = torch.finfo(loss.dtype).eps * 4 * c * value * (value + 4 * scale + 10)
    assert loss.min() >= -rounding
    with torch.no_grad():
        assert (kd_loss(student, student, temperature, reduction="none") == 0).all()
        if dtype == torch.float64:  # a common offset of a row changes no probability
            shifted = kd_loss(student + 7.0, teacher - 3.0, temperature, reduction="none")
            torch.testing.assert_close(shifted, loss, rtol=1e-6, atol=1e-9 * value**2)
