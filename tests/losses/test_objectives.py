"""Objectives: their published sums, their weights over a run, the base class and its errors."""

import math

import gin
import pytest
import torch

from ctkd.errors import ConfigError
from ctkd.losses.dkd import dkd_loss
from ctkd.losses.kd import kd_loss
from ctkd.losses.objectives import DKD, KD, Objective
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
        (1.9999999999, 3 / 20),  # 2 except for rounding
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


def test_bindings_reach_the_constructor_through_gin():
    bound = OBJECTIVES.component("DKD").bound
    gin.parse_config("DKD.beta = 2\nDKD.warmup_epochs = 20")
    assert bound().weights(4.0) == {"ce": 1.0, "tckd": 0.25, "nckd": 0.5}
    gin.parse_config("DKD.beta = 'two'")
    with pytest.raises(ConfigError, match=r"DKD\.beta"):
        bound()


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("CrossEntropy", {"ce": 1.0}),
        ("KD", {"ce": 0.1, "kd": 0.9}),
        ("DKD", {"ce": 1.0, "tckd": 1.0, "nckd": 8.0}),
        ("DTKD", {"ce": 1.0, "dtkd": 3.0, "kd": 1.0}),
        ("WTTM", {"ce": 1.0, "wttm": 1.5}),
        ("DIST", {"ce": 1.0, "inter": 2.0, "intra": 2.0}),
    ],
)
def test_default_weights_are_constant(name, weights):
    objective = OBJECTIVES.get(name)()
    assert objective.weights(0.0) == objective.weights(200.0) == weights


class Margin(Objective):
    """CE + margin_weight · (mean of the student's largest logits), which warms up."""

    warmed = ("margin",)

    def __init__(self, margin_weight=2.0, warmup_epochs=4.0):
        super().__init__(0.5, warmup_epochs, margin=margin_weight)

    def terms(self, student, teacher, targets, temperature):
        assert student.dtype == teacher.dtype == temperature.dtype == torch.float32
        return {"margin": student.amax(1).mean()}


def test_the_base_class_adds_cross_entropy_warm_up_and_checks(rows):
    student, teacher, targets = rows
    objective = Margin()
    raw = 2 * student
    found = objective(student.bfloat16(), teacher, targets, torch.full((6, 1), 2.0).double(), raw)
    assert list(found) == ["ce", "margin"]
    assert torch.equal(found["ce"], cross_entropy_rows(raw, targets))
    assert objective.weights(1.0) == {"ce": 0.5, "margin": 1.0}
    with pytest.raises(
        ConfigError, match=r"Margin\.margin_weight = -1: expected a finite number >= 0"
    ):
        Margin(-1)
    with pytest.raises(ConfigError, match=r"Margin\.warmup_epochs = nan"):
        Margin(warmup_epochs=math.nan)
    for name, arguments in {
        "teacher_logits": (student, None, targets, 4.0),
        "temperature": (student, teacher, targets, None),
    }.items():
        with pytest.raises(ValueError, match=f"{name} = None: Margin needs a teacher"):
            objective(*arguments)
    with pytest.raises(ValueError, match="same rows and classes"):
        objective(student, teacher[:, :-1], targets, 4.0)
