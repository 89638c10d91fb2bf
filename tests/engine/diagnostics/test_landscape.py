"""The instrument: L(T) and its maximizer, measured without touching what it measures."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ctkd.adversary.schedules import ConstantLambda
from ctkd.distiller import Distiller
from ctkd.engine.config.settings import Instrument
from ctkd.engine.diagnostics.landscape import Probe
from ctkd.engine.task import Batch, Rows, Task
from ctkd.losses.objectives import DKD, KD
from ctkd.losses.transforms import LogitStandardization
from ctkd.temperature import ConstantTemperature, GlobalTemperature, InstanceTemperature

N, C = 64, 10


class Given(Task):
    """A task of one fixed batch."""

    batches = evaluate = None

    def __init__(self):
        drawn = torch.Generator().manual_seed(5)
        self.inputs = torch.randn(N, 6, generator=drawn)
        self.targets = torch.randint(0, C, (N,), generator=drawn)
        # As a trained teacher's: one logit stands out, and L(T) has its maximum inside.
        self.teacher = torch.randn(N, C, generator=drawn) + 9 * F.one_hot(self.targets, C)

    def probe(self, size):
        rows = torch.arange(size)
        return Batch(self.inputs[:size], self.targets[:size], rows, rows, size)

    def rows(self, student, teacher, batch):
        return Rows(student(batch.inputs), teacher(batch), batch.targets)


class Student(nn.Module):
    """With everything that a measurement could disturb: batch statistics, and dropout."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, C)
        )

    def forward(self, inputs):
        return self.layers(inputs)


@pytest.fixture
def task():
    return Given()


@pytest.fixture
def student():
    return Student()


def probe(task, **settings):
    made = Instrument(**{"probe_size": N, "low": 0.5, "high": 40.0, "points": 33} | settings)
    return Probe(made, task, lambda batch: task.teacher[batch.indices])


def game(policy=None, objective=None, transform=None):
    policy = policy or GlobalTemperature()
    schedule = ConstantLambda(0.5) if policy.learned else None
    distiller = Distiller(policy, schedule, objective or KD(), transform)
    distiller.at(3.0)
    return distiller


def train_mode_logits(student, task):
    """As a step would see them, in a copy, so that nothing is disturbed."""
    copy = Student()
    copy.load_state_dict(student.state_dict())
    for module in copy.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return copy.train()(task.inputs).detach().double()


def kd_term(student, teacher, temperature):
    q, p = (F.log_softmax(z / temperature, dim=1) for z in (student, teacher))
    return (temperature**2 * (p.exp() * (p - q)).sum(1).mean()).item()


@pytest.fixture
def still(student):
    """The student without dropout, whose logits can be computed apart."""
    student.layers[3].p = 0.0
    return student


def test_t_star_is_the_maximizer_over_a_fine_grid(task, still):
    logits, teacher = train_mode_logits(still, task), task.teacher.double()
    measured = probe(task).measure(still, game())
    fine = [0.5 * (80 ** (k / 20000)) for k in range(20001)]
    losses = [0.9 * kd_term(logits, teacher, t) for t in fine]
    best = max(range(len(fine)), key=losses.__getitem__)
    assert 0.5 < fine[best] < 40  # inside, so that there is something to find
    assert measured["t_star"] == pytest.approx(fine[best], rel=1e-3)
    assert measured["loss_star"] == pytest.approx(losses[best], rel=1e-6)
    assert measured["loss_star"] >= max(measured["losses"])
    assert 0 < measured["regret"] < 1


def test_the_landscape_is_the_weighted_part_that_feels_t(task, still):
    """0.9 · T² KL; cross-entropy, which T has no part in, is left out."""
    logits, teacher = train_mode_logits(still, task), task.teacher.double()
    measured = probe(task).measure(still, game())
    expected = [0.9 * kd_term(logits, teacher, t) for t in measured["temperatures"]]
    assert measured["losses"] == pytest.approx(expected, rel=1e-6)  # 0.9 is a float32


def test_the_grid_is_equally_spaced_in_log_t(task, student):
    temperatures = probe(task, low=1.0, high=16.0, points=5).measure(student, game())[
        "temperatures"
    ]
    assert temperatures == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0])


def test_regret_is_0_at_t_star_and_1_minus_the_ratio_elsewhere(task, still):
    instrument = probe(task)
    t_star = instrument.measure(still, game())["t_star"]
    there = instrument.measure(still, game(ConstantTemperature(t_star)))
    assert there["regret"] == pytest.approx(0.0, abs=1e-9)
    assert there["temperature"] == pytest.approx(t_star)
    far = instrument.measure(still, game(ConstantTemperature(1.0)))
    logits, teacher = train_mode_logits(still, task), task.teacher.double()
    ratio = kd_term(logits, teacher, 1.0) / kd_term(logits, teacher, t_star)
    assert far["regret"] == pytest.approx(1 - ratio, rel=1e-4)


def test_a_maximum_at_the_edge_of_the_grid_is_that_edge(task, student):
    measured = probe(task, low=30.0, high=40.0, points=5).measure(student, game())
    assert measured["t_star"] == pytest.approx(30.0)


@pytest.mark.parametrize("training", [True, False])
def test_student_policy_and_random_state_are_as_before(task, student, training, same):
    student.train(training)
    distiller = game(InstanceTemperature(C, batch_norm=True))
    modules = (student, distiller)
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in modules]
    weights = {name: b.clone() for name, b in distiller.named_buffers()}
    torch.manual_seed(9)
    state = torch.get_rng_state()
    probe(task).measure(student, distiller)
    assert torch.equal(torch.get_rng_state(), state)
    assert student.training is training
    assert distiller.training
    for module, kept in zip(modules, before, strict=True):
        assert same(module.state_dict(), kept)
    assert same(dict(distiller.named_buffers()), weights)  # λ and the weights among them
    assert all(p.grad is None for m in modules for p in m.parameters())


def test_the_landscape_is_that_of_train_mode(task, still):
    """In eval mode the running statistics would be used, here those of no image at all."""
    with torch.no_grad():
        still.layers[1].running_mean.fill_(5.0)
    still.eval()
    measured = probe(task).measure(still, game())
    expected = 0.9 * kd_term(train_mode_logits(still, task), task.teacher.double(), 4.0)
    at_4 = probe(task, low=4.0, high=8.0, points=5).measure(still, game())["losses"][0]
    assert at_4 == pytest.approx(expected)
    assert measured["loss_star"] > 0


def test_of_a_per_row_policy_there_are_quantiles(task, still):
    torch.manual_seed(1)
    policy = InstanceTemperature(C)
    nn.init.normal_(policy.output.weight, std=0.1)
    measured = probe(task).measure(still, game(policy))
    logits = train_mode_logits(still, task)
    rows = policy(logits, task.teacher.double(), 0.0).double().flatten().sort().values
    quantiles = measured["quantiles"]
    assert quantiles == sorted(quantiles)
    assert quantiles[2] == pytest.approx(rows.quantile(0.5).item(), rel=1e-4)
    below = rows.less_equal(quantiles[0]).double().mean().item()
    assert below == pytest.approx(0.05, abs=2 / N)
    assert measured["temperature"] == pytest.approx(rows.mean().item(), rel=1e-4)


def test_of_one_temperature_there_are_none(task, student):
    assert probe(task).measure(student, game())["quantiles"] is None


def test_the_bounds_of_a_learned_t_are_reported(task, student):
    policy = GlobalTemperature(tau_init=2.0, tau_range=5.0)
    assert probe(task).measure(student, game(policy))["bounds"] == [2.0, 7.0]
    constant = game(ConstantTemperature(4.0))
    assert probe(task).measure(student, constant)["bounds"] is None


def test_a_student_that_equals_its_teacher_has_no_regret(task):
    class Echo(nn.Module):
        def forward(self, inputs):
            return task.teacher

    measured = probe(task).measure(Echo(), game())
    assert measured["loss_star"] == pytest.approx(0.0, abs=1e-12)
    assert math.isfinite(measured["regret"])
    assert math.isfinite(measured["t_star"])


class Squares(KD):
    """An objective that the temperature has no part in."""

    def __call__(self, student, teacher, targets, temperature, raw=None):
        ce = F.cross_entropy(student, targets, reduction="none")
        return {"ce": ce, "kd": (student - teacher).square().mean(1)}


def test_where_nothing_feels_t_the_landscape_is_flat_at_0(task, student):
    measured = probe(task).measure(student, game(objective=Squares()))
    assert set(measured["losses"]) == {0.0}
    assert measured["regret"] == 0.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: game(),
        lambda: game(objective=DKD(beta=8.0, warmup_epochs=20.0)),
        lambda: game(objective=DKD(kd_weight=1.0)),
        lambda: game(transform=LogitStandardization()),
        lambda: game(ConstantTemperature(4.0)),
        lambda: game(InstanceTemperature(C)),
        lambda: game(InstanceTemperature(C, inputs="probabilities", order="teacher")),
        lambda: game(GlobalTemperature(raw_init=-6.0)),
        lambda: game(GlobalTemperature(raw_init=8.0)),
        lambda: game(objective=KD(kd_weight=0.0)),
    ],
)
def test_what_is_right_is_not_warned_of(task, student, make):
    assert probe(task).measure(student, make())["warnings"] == []


class Detached(GlobalTemperature):
    """A policy by somebody who forgot what detach does."""

    def forward(self, student, teacher, progress):
        return super().forward(student, teacher, progress).detach()


class HalfUsed(GlobalTemperature):
    """A policy with a parameter that this batch has no use for."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Parameter(torch.zeros(2))


def test_a_policy_that_no_gradient_reaches_is_warned_of(task, student):
    (warning,) = probe(task).measure(student, game(Detached()))["warnings"]
    assert warning.startswith("no gradient of the loss reaches the policy")
    assert probe(task).measure(student, game(HalfUsed()))["warnings"] == []


def test_at_t_star_itself_there_is_nothing_to_warn_of(task, still):
    t_star = probe(task).measure(still, game())["t_star"]
    policy = GlobalTemperature(raw_init=math.log((t_star - 1) / (21 - t_star)))
    measured = probe(task).measure(still, game(policy))
    assert measured["regret"] < 1e-6
    assert measured["warnings"] == []
