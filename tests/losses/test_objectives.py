"""Objectives: their terms, the weights' course, and what they refuse."""

import math

import gin
import pytest
import torch

from ctkd.errors import ConfigError
from ctkd.losses.dkd import dkd_loss
from ctkd.losses.kd import kd_loss
from ctkd.losses.objectives import DKD, KD, CrossEntropy
from ctkd.losses.per_row import cross_entropy_rows
from ctkd.registry import OBJECTIVES


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 6, 10, generator=generator)
    return student, teacher, torch.randint(10, (6,), generator=generator)


def total(objective, terms, position=0.0):
    weights = objective.weights(position)
    assert weights.keys() == terms.keys()
    return sum(weights[name] * term.mean() for name, term in terms.items())


def test_cross_entropy_of_a_row_is_minus_the_log_of_its_probability():
    logits = torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0]])
    actual = cross_entropy_rows(logits, torch.tensor([0, 1]))
    torch.testing.assert_close(actual, torch.tensor([math.log(4 / 3), math.log(4)]))
    half = cross_entropy_rows(logits.bfloat16(), torch.tensor([0, 1], dtype=torch.int32))
    assert half.dtype == torch.float32
    torch.testing.assert_close(
        half, cross_entropy_rows(logits.bfloat16().float(), torch.tensor([0, 1]))
    )


def test_cross_entropy_needs_no_teacher(rows):
    student, _, targets = rows
    objective = CrossEntropy(ce_weight=0.5)
    assert objective.needs_teacher is False
    terms = objective(student, None, targets, None)
    assert terms["ce"].shape == (6,)
    expected = -student.log_softmax(1)[torch.arange(6), targets].mean()
    torch.testing.assert_close(total(objective, terms), 0.5 * expected)


def test_kd_is_the_published_sum(rows):
    student, teacher, targets = rows
    objective = KD()
    assert objective.needs_teacher is True
    terms = objective(student, teacher, targets, 4.0)
    assert {name: term.shape for name, term in terms.items()} == {"ce": (6,), "kd": (6,)}
    ce = cross_entropy_rows(student, targets).mean()
    expected = 0.1 * ce + 0.9 * kd_loss(student, teacher, 4.0)
    torch.testing.assert_close(total(objective, terms), expected)
    assert KD(ce_weight=1.0, kd_weight=1.0).weights(200.0) == {"ce": 1.0, "kd": 1.0}


def test_dkd_is_the_published_sum(rows):
    student, teacher, targets = rows
    objective = DKD(ce_weight=0.7, dkd_weight=0.5, alpha=2.0, beta=6.0)
    terms = objective(student, teacher, targets, torch.full((6, 1), 4.0))
    assert sorted(terms) == ["ce", "nckd", "tckd"]
    assert all(term.shape == (6,) for term in terms.values())
    ce = cross_entropy_rows(student, targets).mean()
    dkd = dkd_loss(student, teacher, targets, 4.0, alpha=2.0, beta=6.0)
    torch.testing.assert_close(total(objective, terms), 0.7 * ce + 0.5 * dkd)


def test_dkd_holds_plain_kd_only_if_it_weighs_anything(rows):
    student, teacher, targets = rows
    objective = DKD(kd_weight=0.3)
    terms = objective(student, teacher, targets, 4.0)
    assert sorted(terms) == ["ce", "kd", "nckd", "tckd"]
    torch.testing.assert_close(terms["kd"], kd_loss(student, teacher, 4.0, reduction="none"))
    assert objective.weights(0.0)["kd"] == 0.3


@pytest.mark.parametrize(
    ("position", "factor"),
    [
        (0.0, 1 / 20),  # the first epoch is n = 1
        (0.99, 1 / 20),
        (1.0, 2 / 20),
        (1.9999999999, 3 / 20),  # 2 but for rounding
        (18.5, 19 / 20),
        (19.0, 1.0),
        (150.0, 1.0),
    ],
)
def test_dkd_warms_up_by_the_epoch(position, factor):
    weights = DKD(warmup_epochs=20.0, beta=2.0, kd_weight=0.3).weights(position)
    assert weights["tckd"] == pytest.approx(factor)
    assert weights["nckd"] == pytest.approx(2.0 * factor)
    assert (weights["ce"], weights["kd"]) == (1.0, 0.3)


def test_dkd_without_warm_up_starts_whole():
    assert DKD().weights(0.0) == {"ce": 1.0, "tckd": 1.0, "nckd": 8.0}


@pytest.mark.parametrize("objective", [CrossEntropy(), KD(), DKD()])
def test_ce_is_taken_on_the_raw_logits(rows, objective):
    student, teacher, targets = rows
    arguments = (student, teacher, targets, 4.0)
    raw = 5 * student
    terms = objective(*arguments, raw_student_logits=raw)
    torch.testing.assert_close(terms["ce"], cross_entropy_rows(raw, targets))
    plain = objective(*arguments)
    torch.testing.assert_close(plain["ce"], cross_entropy_rows(student, targets))
    for name in plain.keys() - {"ce"}:
        assert torch.equal(terms[name], plain[name])


@pytest.mark.parametrize("objective", [KD(), DKD()])
def test_a_missing_teacher_is_told(rows, objective):
    student, teacher, targets = rows
    name = type(objective).__name__
    with pytest.raises(ValueError, match=f"teacher_logits = None: {name}"):
        objective(student, None, targets, 4.0)
    with pytest.raises(ValueError, match=f"temperature = None: {name}"):
        objective(student, teacher, targets, None)


@pytest.mark.parametrize(
    ("kind", "parameter"),
    [(CrossEntropy, "ce_weight"), (KD, "ce_weight"), (KD, "kd_weight")]
    + [
        (DKD, p) for p in ("ce_weight", "dkd_weight", "alpha", "beta", "warmup_epochs", "kd_weight")
    ],
)
@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_settings_out_of_range_are_told(kind, parameter, value):
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.{parameter} = {value}.*>= 0"):
        kind(**{parameter: value})


def test_bindings_reach_the_constructor_through_gin():
    bound = OBJECTIVES.component("DKD").bound
    gin.parse_config("DKD.beta = 2\nDKD.warmup_epochs = 20")
    assert bound().weights(4.0) == {"ce": 1.0, "tckd": 0.25, "nckd": 0.5}
    gin.parse_config("DKD.beta = 'two'")
    with pytest.raises(ConfigError, match=r"DKD\.beta"):
        bound()
