"""CRLD and MLKD against loops in plain Python, their gradients, and the slips of public code."""

import math
import statistics

import pytest
import torch

from ctkd.distiller import Distiller
from ctkd.errors import ConfigError
from ctkd.losses.crld import CRLD
from ctkd.losses.mlkd import MLKD, lower_half
from ctkd.losses.transforms import LogitStandardization
from ctkd.losses.two_views import StrongView
from ctkd.temperature import ConstantTemperature

N, C = 6, 5


@pytest.fixture
def logits():
    """Student's and teacher's logits of the plain and of the strong view, and targets."""
    drawn = torch.Generator().manual_seed(0)
    made = [
        scale * torch.randn(N, C, generator=drawn, dtype=torch.float64) for scale in (2, 3, 2, 3)
    ]
    # Confidences from 0.3 to 0.99, on both sides of CRLD's bounds.
    for teacher in made[1::2]:
        teacher *= torch.linspace(0.2, 2, N, dtype=torch.float64)[:, None]
    return (*made, torch.randint(C, (N,), generator=drawn))


def given(logits, temperature=4.0, transform=None):
    """The arguments of an objective."""
    student, teacher, strong, strong_teacher, targets = logits
    moved = (lambda *pair: pair) if transform is None else transform
    views = StrongView(*moved(strong, strong_teacher), strong, strong_teacher, teacher)
    return (*moved(student, teacher), targets, temperature, student, views)


def softmax(row, heat=1.0):
    exponentials = [math.exp(z / heat) for z in row]
    return [e / math.fsum(exponentials) for e in exponentials]


def kd(student, teacher, heat):
    """T² · KL of one row."""
    p, q = softmax(teacher, heat), softmax(student, heat)
    return heat**2 * math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def gap(student, teacher, heat, keep, by_class):
    """Σ over the kept rows (or classes) of squared differences of the Gram matrices."""
    p, q = ([softmax(row, heat) for row in rows] for rows in (teacher, student))
    if by_class:
        p, q = (list(zip(*rows, strict=True)) for rows in (p, q))
    total = 0.0
    for i, kept in enumerate(keep):
        for j in range(len(p)):
            dots = (math.fsum(a * b for a, b in zip(x[i], x[j], strict=True)) for x in (p, q))
            total += kept * (next(dots) - next(dots)) ** 2
    return total / len(p)


def mlkd_loop(logits, heats, published, transformed=None):
    """kd_plain, the mean of kd_strong, class and batch."""
    s, t = (x.tolist() for x in logits[:2])
    zs, zt, zgs, zgt = (x.tolist() for x in (transformed or logits[:4]))
    probabilities = [softmax(row) for row in t]
    sure = [max(row) for row in probabilities]
    mass = [math.fsum(column) for column in zip(*probabilities, strict=True)]
    unsure = [x <= statistics.median(sure) for x in sure]
    rare = [x <= statistics.median(mass) for x in mass]
    if published:
        unsure, rare = ([statistics.fmean(half)] * len(half) for half in (unsure, rare))
    sums = [0.0] * 4
    for k, heat in enumerate(heats):
        rows = [kd(a, b, heat) for a, b in zip(zs, zt, strict=True)]
        sums[0] += statistics.fmean(m * row for m, row in zip(unsure, rows, strict=True))
        swapped = published and k >= 3
        other = rows if swapped else [kd(a, b, heat) for a, b in zip(zgs, zgt, strict=True)]
        sums[1] += statistics.fmean(other)
        sums[2] += gap(s, t, heat, rare, by_class=True)
        sums[3] += gap(s, t, heat, unsure, by_class=False)
    return sums


@pytest.mark.parametrize("published", [False, True])
def test_mlkd_is_the_loop_of_its_equations(logits, published):
    terms = MLKD(as_published=published)(*given(logits))
    found = [terms[k].mean().item() for k in ("kd_plain", "kd_strong", "class", "batch")]
    assert found == pytest.approx(mlkd_loop(logits, (4, 3, 5, 2, 6), published), rel=1e-9)
    for name, rows in (("ce", logits[0]), ("ce_strong", logits[2])):
        rows = rows.tolist()
        losses = [-math.log(softmax(row)[y]) for row, y in zip(rows, logits[4], strict=True)]
        assert terms[name].tolist() == pytest.approx(losses)


def test_mlkd_on_standardized_logits_compares_classes_and_batch_on_the_raw_ones(logits):
    standardize = LogitStandardization()
    moved = [*standardize(*logits[:2]), *standardize(*logits[2:4])]
    made = MLKD(ratios=(1.0, 1.5, 2.5, 1.0, 3.0))
    terms = made(*given(logits, 2.0, standardize))
    found = [terms[k].mean().item() for k in ("kd_plain", "kd_strong", "class", "batch")]
    wanted = mlkd_loop(logits, (2, 3, 5, 2, 6), False, moved)
    assert found == pytest.approx(wanted, rel=1e-6)  # the loop has the same z-scores


def test_crld_is_the_loop_of_its_equations(logits):
    s, t, gs, gt = (x.tolist() for x in logits[:4])
    terms = CRLD(within_confidence=0.8, across_confidence=0.6)(*given(logits))
    kept = set()
    for i in range(N):
        sure, other = max(softmax(t[i])) >= 0.8, max(softmax(gt[i])) >= 0.6
        kept |= {("within", sure), ("across", other)}
        within = sure * (kd(s[i], t[i], 4.0) + kd(gs[i], gt[i], 4.0))
        across = other * (kd(gs[i], t[i], 4.0) + kd(s[i], gt[i], 4.0))
        assert terms["within"][i].item() == pytest.approx(within)
        assert terms["across"][i].item() == pytest.approx(across)
    assert len(kept) == 4  # rows on both sides of both bounds


@pytest.mark.parametrize("make", [CRLD, MLKD, lambda: MLKD(as_published=True)])
@pytest.mark.parametrize("per_row", [False, True])
def test_gradients_in_both_views_of_the_student_and_in_the_temperature(logits, make, per_row):
    objective = make()
    weights = objective.weights(0.0)

    def loss(student, strong, temperature):
        moved = (student, logits[1], strong, *logits[3:])
        terms = objective(*given(moved, temperature))
        return sum(weights[name] * term.mean() for name, term in terms.items())

    heat = torch.linspace(2, 6, N, dtype=torch.float64)[:, None] if per_row else torch.tensor(3.0)
    inputs = [x.clone().double().requires_grad_() for x in (logits[0], logits[2], heat)]
    assert torch.autograd.gradcheck(loss, inputs)
    assert all(gradient.any() for gradient in torch.autograd.grad(loss(*inputs), inputs))


def test_the_lower_half_is_that_of_numpys_percentile():
    for count in (1, 2, 5, 6):
        values = torch.arange(count).double().flip(0)
        half = lower_half(values)
        assert half.tolist() == [float(v <= (count - 1) / 2) for v in values.tolist()]


def test_the_distiller_transforms_both_views_and_keeps_cross_entropy_raw(logits):
    student, teacher, strong, strong_teacher, targets = logits
    distiller = Distiller(ConstantTemperature(2.0), None, CRLD(), LogitStandardization()).double()
    views = (strong, strong_teacher)
    terms, _ = distiller.terms(student, teacher, targets, strong=views)
    wanted = CRLD()(*given(logits, 2.0, LogitStandardization()))
    for name, term in wanted.items():
        torch.testing.assert_close(terms[name], term)
    with pytest.raises(ValueError, match="CRLD needs both views: pass strong="):
        distiller(student, teacher, targets, position=0.0)


def test_settings_that_make_no_sense_are_refused():
    for ratios in ((1.0, 2.0), (1.0, 2.0, 0.0), (1.0, 2.0, math.nan)):
        with pytest.raises(ConfigError, match=r"MLKD.ratios = .*: expected more than 2 numbers"):
            MLKD(ratios=ratios)
    with pytest.raises(ConfigError, match=r"CRLD.within_confidence = 1.5: expected a prob"):
        CRLD(within_confidence=1.5)
