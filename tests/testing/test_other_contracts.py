"""check_schedule, check_transform and check_settings find faults, and accept what is right."""

import math

import pytest

from ctkd.checks import expect
from ctkd.testing import check_schedule, check_settings, check_transform


def test_faulty_schedules():
    check_schedule(lambda position: 0.0 if position < 2 else 1)
    for schedule, fault in {
        (lambda position: 1.0 - position): "-8.999999 at position 9.999999",
        (lambda position: math.inf): "inf at position 0.0: expected a finite number >= 0",
    }.items():
        with pytest.raises(AssertionError, match=fault):
            check_schedule(schedule)
    calls = []
    with pytest.raises(AssertionError, match="a value depends on earlier calls"):
        check_schedule(lambda position: float(len(calls) or calls.append(1) or 0))


def naive(z):
    return (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)


@pytest.mark.parametrize(
    ("transform", "fault"),
    [
        (lambda s, t: (naive(s), naive(t)), "not finite"),
        (lambda s, t: (s - s.mean(), t), "other rows change a row of the student"),
        (lambda s, t: (s.detach(), t), "the gradient in the logits is"),
        (lambda s, t: (s[:, 1:], t[:, 1:]), "the shape [1, 10] becomes [1, 9]"),
        (lambda s, t: (s, t.mul_(2)), "the call overwrites its arguments"),
        (lambda s, t: (s.float(), t.float()), "torch.float64 becomes torch.float32"),
        (lambda s, t: (s / max(1.0, s.abs().max().item()), t), "other rows change a row"),
        (lambda s, t: (s * 1.0 if s.sum().item() else s, t), "a GPU would wait for"),
    ],
)
def test_faulty_transforms(transform, fault):
    with pytest.raises(AssertionError) as caught:
        check_transform(transform)
    assert fault in str(caught.value)


def test_a_transform_from_outside_keeps_the_contract():
    check_transform(lambda s, t: (s - s.mean(1, keepdim=True), t - t.mean(1, keepdim=True)))


def test_faulty_settings():
    def made(size: int = 2, share: float = 0.5, offset: float = 0.0):
        expect(size > 0, "made", "size", size, "a whole number > 0")
        expect(0 <= share < math.inf, "made", "share", share, "a finite number >= 0")
        expect(math.isfinite(offset), "made", "offset", offset, "a finite number")

    check_settings(made, signed=["offset"])
    with pytest.raises(AssertionError, match=r"made: offset = -0.5 is accepted"):
        check_settings(made)
    with pytest.raises(AssertionError, match=r"made: share = 0.0 is accepted"):
        check_settings(made, signed=["offset"], positive=["share"])

    def misnamed(share: float = 0.5):
        expect(share >= 0, "misnamed", "part", share, "a number >= 0")

    with pytest.raises(AssertionError, match="does not name it"):
        check_settings(misnamed)
