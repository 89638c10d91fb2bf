"""The game: one loss, descended by the student and climbed by the temperature."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from ctkd import Distiller
from ctkd.adversary.schedules import ConstantLambda, CosineLambda
from ctkd.errors import ConfigError
from ctkd.losses.objectives import DKD, KD, CrossEntropy
from ctkd.losses.transforms import LogitStandardization
from ctkd.temperature import (
    AnnealedTemperature,
    ConstantTemperature,
    GlobalTemperature,
    InstanceTemperature,
)

N, C = 12, 5


@pytest.fixture
def logits():
    """Student's (with gradient), teacher's, and targets, in float64."""
    drawn = torch.Generator().manual_seed(3)
    student = (2 * torch.randn(N, C, generator=drawn, dtype=torch.float64)).requires_grad_()
    teacher = 4 * torch.randn(N, C, generator=drawn, dtype=torch.float64)
    return student, teacher, torch.arange(N) % C


def global_game(lambda_=1.0, **objective):
    return Distiller(GlobalTemperature(), ConstantLambda(lambda_), KD(**objective)).double()


def kl(student, teacher, temperature):
    q, p = (F.log_softmax(z / temperature, dim=1) for z in (student, teacher))
    return (p.exp() * (p - q)).sum(1)


class InTheMean:
    """An objective whose second term is made of the whole batch, and so 0-d."""

    needs_teacher = False

    def __call__(self, student, teacher, targets, temperature, raw=None):
        rows = F.cross_entropy(student, targets, reduction="none")
        return {"ce": rows, "whole": student.square().mean()}

    def weights(self, position):
        return {"ce": 1.0, "whole": 0.5}


def test_the_loss_is_the_published_one(logits):
    """0.1 · CE + 0.9 · T² · KL, means over the batch, T = 1 + 20 σ(1) = 15.6212."""
    student, teacher, targets = logits
    outcome = global_game()(student, teacher, targets, position=0.0)
    temperature = 1 + 20 / (1 + math.exp(-1))
    ce = F.cross_entropy(student, targets)
    kd = temperature**2 * kl(student, teacher, temperature).mean()
    assert outcome.loss.item() == pytest.approx((0.1 * ce + 0.9 * kd).item(), rel=1e-6)
    assert outcome.terms["ce"].item() == pytest.approx(ce.item())
    assert outcome.terms["kd"].item() == pytest.approx(kd.item(), rel=1e-6)
    assert outcome.temperature.item() == pytest.approx(15.6212, abs=1e-4)


@pytest.mark.parametrize("lambda_", [0.0, 0.25, 1.0])
def test_the_policy_climbs_with_strength_lambda(logits, lambda_):
    """d loss / d raw = −λ · dL/dT · dT/draw, with dL/dT in closed form (facts.md)."""
    student, teacher, targets = logits
    game = global_game(lambda_, ce_weight=0.0, kd_weight=1.0)
    game(student, teacher, targets, position=0.0).loss.backward()
    sigmoid = 1 / (1 + math.exp(-1))
    t = 1 + 20 * sigmoid
    p, q = F.softmax(teacher / t, dim=1), F.softmax(student / t, dim=1)
    gap = student - teacher
    covariance = (p * teacher * gap).sum(1) - (p * teacher).sum(1) * (p * gap).sum(1)
    slope = 2 * t * kl(student, teacher, t) - ((q - p) * student).sum(1) + covariance / t
    expected = -lambda_ * slope.mean().item() * 20 * sigmoid * (1 - sigmoid)
    assert game.policy.raw.grad.item() == pytest.approx(expected, rel=1e-5, abs=1e-12)
    if lambda_ == 0.0:
        assert game.policy.raw.grad.item() == 0.0


def test_the_students_gradient_is_the_closed_form_whatever_lambda(logits):
    """∂L/∂z_s = T (q − p) / N: the reversal does not reach the student."""
    student, teacher, targets = logits
    for game in (
        global_game(0.0, ce_weight=0.0, kd_weight=1.0),
        global_game(1.0, ce_weight=0.0, kd_weight=1.0),
        Distiller(
            InstanceTemperature(C), ConstantLambda(1.0), KD(ce_weight=0.0, kd_weight=1.0)
        ).double(),
    ):
        student.grad = None
        game(student, teacher, targets, position=0.0).loss.backward()
        t = 1 + 20 / (1 + math.exp(-1))  # where both policies start
        expected = t * (F.softmax(student / t, dim=1) - F.softmax(teacher / t, dim=1)) / N
        torch.testing.assert_close(student.grad, expected, rtol=1e-5, atol=1e-9)


def test_one_optimizer_moves_t_uphill_and_the_student_downhill(logits):
    """sign(ΔT) = sign(dL/dT) at a frozen student."""
    student, teacher, targets = logits
    game = global_game(ce_weight=0.0, kd_weight=1.0)
    optimizer = torch.optim.SGD(game.parameters(), lr=1e-2)
    for start in (-4.0, 1.0, 3.0):
        with torch.no_grad():
            game.policy.raw.fill_(start)
        before = game(student, teacher, targets, position=0.0)
        before.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        after = game(student, teacher, targets, position=0.0)
        assert after.loss > before.loss
        step = 1e-4 * (after.temperature - before.temperature).sign()
        t = before.temperature
        ahead, behind = (
            (x**2 * kl(student, teacher, x)).mean() for x in (t + step.abs(), t - step.abs())
        )
        assert (ahead - behind).sign() == step.sign()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 4), st.sampled_from(["global", "instance", "mean"]))
def test_parts_of_a_step_add_up_to_the_whole(rows, parts, kind):
    """Loss, terms and gradients, with uneven parts, of per-row terms; 0-d terms by their share."""
    drawn = torch.Generator().manual_seed(rows)
    inputs = torch.randn(rows, 3, generator=drawn, dtype=torch.float64)
    teacher = torch.randn(rows, C, generator=drawn, dtype=torch.float64)
    targets = torch.arange(rows) % C
    torch.manual_seed(0)
    network = nn.Linear(3, C).double()
    game = {
        "global": lambda: global_game(),
        "instance": lambda: Distiller(
            InstanceTemperature(C), ConstantLambda(1.0), DKD(beta=2.0)
        ).double(),
        "mean": lambda: Distiller(None, None, InTheMean()).double(),
    }[kind]()
    results = []
    for count in (1, parts):
        network.zero_grad()
        game.zero_grad()
        chunks = [x.chunk(count) for x in (inputs, teacher, targets)]
        outcomes = []
        for x, t, y in zip(*chunks, strict=True):
            outcomes.append(game(network(x), t, y, position=3.0, total_rows=rows))
            outcomes[-1].loss.backward()
        sums = [sum(o.terms[name] for o in outcomes) for name in outcomes[0].terms]
        gradients = [p.grad for p in (*network.parameters(), *game.parameters())]
        results.append([sum(o.loss.detach() for o in outcomes), *sums, *gradients])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_other_losses_ride_along_by_their_share(logits):
    student, teacher, targets = logits
    game = global_game()
    alone = game(student, teacher, targets, position=0.0)
    half = game(
        student,
        teacher,
        targets,
        total_rows=2 * N,
        other_losses={"box": torch.tensor(3.0, dtype=torch.float64)},
    )
    assert half.loss.item() == pytest.approx(alone.loss.item() / 2 + 1.5)
    assert half.terms["box"].item() == 1.5


def test_weights_and_lambda_follow_the_position(logits):
    student, teacher, targets = logits
    game = Distiller(GlobalTemperature(), CosineLambda(), DKD(beta=2.0, warmup_epochs=20.0))
    student = student.detach().float()
    losses = []
    for position in (0.0, 0.99, 9.0, 100.0):
        outcome = game(student, teacher.float(), targets, position=position)
        terms = outcome.terms
        warm = min((math.floor(position) + 1) / 20, 1.0)
        expected = terms["ce"] + warm * (terms["tckd"] + 2 * terms["nckd"])
        assert outcome.loss.item() == pytest.approx(expected.item(), rel=1e-5)
        losses.append(outcome.loss.item())
    assert losses[0] == losses[1]  # held through the epoch
    found = []
    for epoch in range(10):
        game.at(epoch + 0.5)
        found.append(game.get_buffer("lambda_").item())
    published = [0.0245, 0.0955, 0.2061, 0.3455, 0.5, 0.6545, 0.7939, 0.9045, 0.9755, 1.0]
    assert found == pytest.approx(published, abs=5e-5)


def test_progress_reaches_an_annealed_temperature(logits):
    student, teacher, targets = logits
    game = Distiller(AnnealedTemperature(10.0, 2.0), None, KD())
    for progress, expected in ((0.0, 10.0), (0.25, 8.0), (1.0, 2.0)):
        outcome = game(student, teacher, targets, position=0.0, progress=progress)
        assert outcome.temperature.item() == pytest.approx(expected)


def test_a_transform_is_seen_by_policy_and_objective_but_not_by_cross_entropy(logits):
    student, teacher, targets = logits
    game = Distiller(ConstantTemperature(2.0), None, KD(), LogitStandardization())
    first = game(student, teacher, targets, position=0.0)
    scaled = game(3 * student + 1, 2 * teacher, targets, position=0.0)  # the same when standardized
    assert scaled.terms["kd"].item() == pytest.approx(first.terms["kd"].item(), rel=1e-5)
    assert first.terms["ce"].item() == pytest.approx(F.cross_entropy(student, targets).item())
    standard = [(z - z.mean(1, True)) / z.std(1, keepdim=True) for z in (student, teacher)]
    assert first.terms["kd"].item() == pytest.approx(4 * kl(*standard, 2.0).mean().item(), rel=1e-5)


def test_a_negative_lambda_is_refused_where_it_arises(logits):
    game = Distiller(GlobalTemperature(), lambda position: 0.5 - position, KD())
    game.at(0.5)
    with pytest.raises(ConfigError, match=r"gives λ = -0.5 at position 1.0: expected λ >= 0"):
        game.at(1.0)


def test_nan_from_a_schedule_is_refused_too():
    game = Distiller(GlobalTemperature(), lambda position: math.nan, KD())
    with pytest.raises(ConfigError, match="gives λ = nan"):
        game.at(0.0)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((None, None, KD()), "KD compares logits: it needs a temperature policy"),
        ((ConstantTemperature(4.0), None, CrossEntropy()), "uses no teacher and so no temperature"),
        ((None, None, CrossEntropy(), LogitStandardization()), "no teacher and so no transform"),
        ((GlobalTemperature(), None, KD()), "needs a schedule of λ, such as CosineLambda"),
        ((ConstantTemperature(4.0), CosineLambda(), KD()), "works on a learned temperature only"),
        ((None, CosineLambda(), CrossEntropy()), "works on a learned temperature only"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(parts, expected):
    with pytest.raises(ConfigError, match=expected):
        Distiller(*parts)


def test_without_a_position_the_first_call_says_what_to_do(logits):
    with pytest.raises(ValueError, match=r"pass position=<done epochs>, or call at\(position\)"):
        global_game()(*logits)


def test_without_teacher_logits_it_is_reported(logits):
    student, _, targets = logits
    with pytest.raises(ValueError, match="teacher_logits is None"):
        global_game()(student, None, targets, position=0.0)


def test_cross_entropy_alone_needs_neither_teacher_nor_policy(logits):
    student, _, targets = logits
    outcome = Distiller(None, None, CrossEntropy())(student, None, targets, position=0.0)
    assert outcome.loss.item() == pytest.approx(F.cross_entropy(student, targets).item())
    assert outcome.temperature is None


def test_what_it_saves_is_the_policy_alone():
    assert set(global_game().state_dict()) == {"policy.raw"}
    assert list(Distiller(ConstantTemperature(4.0), None, KD()).state_dict()) == []


def test_nothing_is_read_back_from_the_device(logits):
    """On the meta device any look at a value raises."""
    student, teacher, targets = (x.detach().to("meta") for x in logits)
    game = Distiller(GlobalTemperature(), CosineLambda(), DKD(beta=2.0, warmup_epochs=20.0))
    game.to("meta")
    outcome = game(student.float(), teacher.float(), targets, position=1.0)
    assert outcome.loss.is_meta
