"""What the losses keep with two classes: the mathematics behind the warnings."""

import pytest
import torch

from ctkd.losses.few_classes import limits, min_classes
from ctkd.registry import OBJECTIVES, TRANSFORMS

ROWS, T = 64, 4.0
OBJECTIVES_WITH_TEACHER = ("KD", "DKD", "DTKD", "WTTM", "DIST")


def logits(classes, seed=0):
    """Student's with a gradient, teacher's, targets; rows of mean 0 as trained networks have."""
    random = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(ROWS, classes, generator=random) for _ in range(2))
    student, teacher = (z - z.mean(1, keepdim=True) for z in (student, teacher))
    targets = torch.randint(classes, (ROWS,), generator=random)
    return student.requires_grad_(), teacher, targets


def largest_gradient(name, term, classes, transform=None):
    student, teacher, targets = logits(classes)
    rows = (student, teacher) if transform is None else transform(student, teacher)
    value = OBJECTIVES.get(name)()(*rows, targets, T, student)[term].sum()
    (gradient,) = torch.autograd.grad(value, student)
    return gradient.norm(dim=1)


def test_dkds_nckd_is_zero_and_its_tckd_is_kd():
    student, teacher, targets = logits(2)
    terms = OBJECTIVES.get("DKD")()(student, teacher, targets, T)
    assert terms["nckd"].abs().max() == 0
    assert largest_gradient("DKD", "nckd", 2).max() == 0
    kd = OBJECTIVES.get("KD")()(student, teacher, targets, T)["kd"]
    torch.testing.assert_close(terms["tckd"], kd)


def test_the_kd_that_dkds_warning_names_is_the_same_loss():
    student, teacher, targets = logits(2)
    dkd = OBJECTIVES.get("DKD")(ce_weight=0.5, dkd_weight=2.0, alpha=1.5, kd_weight=0.25)
    (text,) = limits(dkd, 2, False)
    assert "KD.ce_weight = 0.5 and KD.kd_weight = 3.25" in text
    kd = OBJECTIVES.get("KD")(ce_weight=0.5, kd_weight=3.25)
    losses = []
    for objective in (dkd, kd):
        terms, weights = objective(student, teacher, targets, T), objective.weights(0.0)
        losses.append(sum(weights[name] * terms[name] for name in terms))
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("name", OBJECTIVES_WITH_TEACHER[:-1])
def test_standardized_rows_of_two_lose_their_gradient(name):
    transform = TRANSFORMS.get("LogitStandardization")()
    student, teacher, _ = logits(2)
    assert (transform(student, teacher)[0].abs() - 0.7071).abs().max() < 1e-4
    term = {"DKD": "tckd", "DTKD": "dtkd", "WTTM": "wttm"}.get(name, "kd")
    with_two = largest_gradient(name, term, 2, transform)
    assert with_two.max() < 1e-4
    assert largest_gradient(name, term, 3, transform).median() > 1000 * with_two.max()


def test_dists_correlation_of_two_has_almost_no_gradient():
    assert largest_gradient("DIST", "inter", 2).median() < 1e-4
    assert largest_gradient("DIST", "inter", 3).median() > 1e-2


def test_dtkds_dynamic_term_is_zero_where_both_prefer_one_class():
    student, teacher, targets = logits(2)
    rows = OBJECTIVES.get("DTKD")()(student, teacher, targets, T)["dtkd"]
    same = student.argmax(1) == teacher.argmax(1)
    assert rows[same].max() < 1e-5 < rows[~same].min()


@pytest.mark.parametrize("name", ["KD", "DKD", "DTKD"])
def test_with_two_classes_every_row_pulls_a_learned_t_up(name):
    def slopes(classes):
        student, teacher, targets = logits(classes)
        temperature = torch.full((ROWS, 1), T, requires_grad=True)
        terms = OBJECTIVES.get(name)()(student.detach(), teacher, targets, temperature)
        term = terms["tckd" if name == "DKD" else "kd"]
        return torch.autograd.grad(term.sum(), temperature)[0]

    assert (slopes(2) > 0).all()
    assert (slopes(10) < 0).any()


@pytest.mark.parametrize("name", [*OBJECTIVES_WITH_TEACHER, "CrossEntropy"])
def test_who_warns_of_two_classes(name):
    objective = OBJECTIVES.get(name)()
    assert min_classes(objective) == 2
    fixed, learned = limits(objective, 2, False), limits(objective, 2, True)
    assert bool(fixed) == (name in ("DKD", "DTKD", "DIST"))
    assert len(learned) - len(fixed) == (name in ("KD", "DKD", "DTKD"))
    assert all(text.startswith(f"{name} with 2 classes: ") for text in learned)
    assert limits(objective, 3, True) == limits(objective, 100, True) == []


def test_terms_that_weigh_nothing_warn_of_nothing():
    silent = {"DKD": {"beta": 0.0}, "DTKD": {"dtkd_weight": 0.0}, "DIST": {"inter_weight": 0.0}}
    for name, weights in silent.items():
        assert limits(OBJECTIVES.get(name)(**weights), 2, False) == []


def test_a_part_that_declares_nothing_has_no_limits():
    assert min_classes(None) == min_classes(object()) == 1
    assert limits(None, 2, True) == limits(object(), 2, True) == []
