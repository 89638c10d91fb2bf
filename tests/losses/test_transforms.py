"""Logit standardization: its two moments, its invariances, and constant rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctkd.losses.kd import kd_loss
from ctkd.losses.transforms import LogitStandardization


def rows(n=5, c=8, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(n, c, generator=generator, dtype=torch.float64) for _ in range(2)]


def test_known_row():
    row = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)  # mean 2, unbiased std 1
    student, teacher = LogitStandardization()(row, 10 * row)
    expected = torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(student, expected / (1 + 1e-7), rtol=1e-14, atol=0)
    torch.testing.assert_close(teacher, 10 * expected / (10 + 1e-7), rtol=1e-14, atol=0)
    coarse, _ = LogitStandardization(epsilon=1.0)(row, row)
    torch.testing.assert_close(coarse, expected / 2)


def test_rows_have_mean_0_and_unbiased_std_1():
    for z in LogitStandardization()(*rows()):
        torch.testing.assert_close(z.mean(1), torch.zeros(5).double(), rtol=0, atol=1e-12)
        torch.testing.assert_close(
            z.std(1, unbiased=True), torch.ones(5).double(), rtol=1e-6, atol=0
        )


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 4),
    c=st.integers(2, 12),
    factor=st.floats(0.1, 100.0),
    shift=st.floats(-100.0, 100.0),
    seed=st.integers(0, 10**6),
)
def test_scale_and_shift_of_a_row_do_not_matter(n, c, factor, shift, seed):
    student, teacher = rows(n, c, seed=seed)
    transform = LogitStandardization(epsilon=1e-12)
    expected = transform(student, teacher)
    actual = transform(factor * student + shift, factor * teacher - shift)
    for z, reference in zip(actual, expected, strict=True):
        torch.testing.assert_close(z, reference, rtol=1e-6, atol=1e-6)


def test_a_student_of_the_teachers_shape_but_another_scale_has_no_loss():
    _, teacher = rows()
    student = 0.2 * teacher + 3.0
    assert kd_loss(student, teacher, 2.0) > 0.01
    assert kd_loss(*LogitStandardization()(student, teacher), 2.0) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e4])
def test_a_constant_row_gives_0_and_finite_gradients(dtype, value):
    student = torch.full((2, 10), value, dtype=dtype, requires_grad=True)
    teacher = rows(2, 10)[0].to(dtype)
    s, t = LogitStandardization()(student, teacher)
    assert s.abs().max() < 1.0
    kd_loss(s, t, 2.0).backward()
    assert student.grad.isfinite().all()
    if value == 0.0:  # std is exactly 0 here; its naive derivative would be 0/0
        assert (s == 0).all()
        naive = torch.zeros(1, 10, requires_grad=True)
        (naive.square().sum(1) / 9).sqrt().backward()
        assert naive.grad.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = (z.to(dtype) for z in rows())
    actual = LogitStandardization()(student, teacher)
    for z, reference in zip(
        actual, LogitStandardization()(student.float(), teacher.float()), strict=True
    ):
        assert z.dtype == torch.float32
        assert torch.equal(z, reference)


@pytest.mark.parametrize("shape", [(4, 1), (4,), (2, 3, 4)])
def test_shapes_are_checked(shape):
    with pytest.raises(ValueError, match="student_logits"):
        LogitStandardization()(torch.zeros(shape), torch.zeros(shape))
