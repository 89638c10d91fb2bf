"""The faults that users of other codebases meet unknowingly: the instrument shows each.

Each is made in a run of one or a few epochs and compared with the right run of the same seed. A run
that can know the fault warns on standard error; the right runs of all methods do not warn.
"""

import re

import pytest
import torch
from torch import nn

from ctkd import distiller as distiller_module
from ctkd.adversary.grl import gradient_reversal
from ctkd.engine.diagnostics.warnings import without_maximum
from ctkd.losses.kd import kd_loss
from ctkd.losses.objectives import KD
from ctkd.registry import OBJECTIVES, TEMPERATURES
from ctkd.temperature import GlobalTemperature

EPOCH = ["epochs = 2", "digits.train_images = 1024"]
STRONG = ["Method.schedule = @ConstantLambda", "ConstantLambda.value = 1.0"]


@OBJECTIVES.register("detached_kd_of_test_faults")
class DetachedKD(KD):
    """KD whose factor T² is outside the graph, as if it were a constant."""

    def __call__(self, student, teacher, targets, temperature, raw=None):
        terms = super().__call__(student, teacher, targets, temperature, raw)
        kl = kd_loss(student, teacher, temperature, reduction="none") / _square(temperature)
        return terms | {"kd": _square(temperature).detach() * kl}


def _square(temperature):
    return (temperature * temperature).squeeze(-1)


@TEMPERATURES.register("doubly_reversed_of_test_faults")
class DoublyReversed(GlobalTemperature):
    """A policy that reverses the gradient by itself, before the Distiller does."""

    def forward(self, student, teacher, progress):
        return gradient_reversal(super().forward(student, teacher, progress), 1.0)


@pytest.fixture
def wrong_sign(monkeypatch):
    """A λ of the wrong sign: the gradient passes as it is, and T is minimized over too."""

    class Unreversed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, lambda_):
            ctx.lambda_ = float(lambda_)
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            return ctx.lambda_ * gradient, None

    monkeypatch.setattr(distiller_module, "gradient_reversal", Unreversed.apply)


@pytest.mark.parametrize(
    "method", ["vanilla", "kd", "annealed", "ctkd", "ctkd_instance", "dkd", "dkd_ctkd"]
)
def test_the_right_runs_say_nothing(train, method):
    assert train(method, *EPOCH).result.err == ""


@pytest.mark.parametrize("method", ["ctkd", "ctkd_instance", "dkd_ctkd"])
def test_standardized_logits_make_no_false_alarm(train, method):
    run = train(method, *EPOCH, "Method.transform = @LogitStandardization")
    assert "lowers the loss" not in run.result.err
    assert "derivative" not in run.result.err


@pytest.mark.parametrize("method", ["ctkd", "dkd_ctkd", "ctkd_instance"])
def test_a_lambda_of_the_wrong_sign_is_reported_within_an_epoch(train, wrong_sign, method):
    run = train(method, *EPOCH, *STRONG)
    warning = "warning: the policy's update lowers the loss instead of raising it: is the sign of λ"
    assert run.result.err.startswith(warning)
    assert run.result.err.count("\n") == 1  # once, however often it is measured


def test_of_a_wrong_sign_the_landscape_shows_t_walking_away_from_t_star(train, wrong_sign):
    wrong = train("ctkd", *EPOCH, *STRONG, workdir="wrong")
    first, last = wrong.landscape[0], wrong.landscape[-1]
    assert first["t_star"] < first["temperature"] < last["temperature"]


def test_of_the_right_sign_it_shows_t_walking_towards_t_star(train):
    right = train("ctkd", *EPOCH, *STRONG, workdir="right")
    first, last = right.landscape[0], right.landscape[-1]
    assert last["temperature"] < first["temperature"]
    assert last["regret"] < first["regret"]


def test_a_gradient_reversed_twice_is_reported_as_well(train):
    run = train("ctkd", *EPOCH, "Method.policy = @doubly_reversed_of_test_faults")
    assert "or the gradient reversed twice?" in run.result.err


def test_a_detached_square_is_reported_within_an_epoch(train):
    run = train("ctkd", *EPOCH, "Method.objective = @detached_kd_of_test_faults")
    assert "the gradient that reaches the temperature (" in run.result.err
    assert "is a factor T² or a softmax detached?" in run.result.err


def test_a_detached_square_makes_t_settle_lower(train):
    """facts.md: a different method, whose T ends below the one that climbs L."""
    long = ["epochs = 8", "digits.train_images = 1024", *STRONG]
    right = train("ctkd", *long, workdir="right")
    wrong = train("ctkd", *long, "Method.objective = @detached_kd_of_test_faults", workdir="wrong")
    assert wrong.landscape[-1]["temperature"] < right.landscape[-1]["temperature"]
    assert wrong.landscape[-1]["temperature"] < wrong.landscape[-1]["t_star"]


@pytest.mark.parametrize(
    ("method", "bindings", "bound"),
    [
        ("ctkd", ["GlobalTemperature.raw_init = -9.0"], "lower bound 1"),
        ("ctkd", ["GlobalTemperature.raw_init = 9.0"], "upper bound 21"),
        (
            "ctkd",
            ["GlobalTemperature.tau_range = 2.0", "GlobalTemperature.raw_init = 7.0"],
            "upper bound 3",
        ),
        ("ctkd_instance", ["InstanceTemperature.raw_init = -9.0"], "lower bound 1"),
    ],
)
def test_a_temperature_pinned_at_a_bound_is_reported_after_an_epoch(train, method, bindings, bound):
    run = train(method, *EPOCH, *bindings)
    assert f"warning: T was at its {bound} for the whole epoch: it is no longer learned" in (
        run.result.err
    )
    last = run.landscape[-1]
    low, high = last["bounds"]
    assert min(last["temperature"] - low, high - last["temperature"]) < 0.01 * (high - low)


def test_rows_that_nearly_all_stand_at_a_bound_are_reported(train):
    """On raw logits T of the digits runs to 21."""
    inputs = "InstanceTemperature.inputs = 'logits'"
    run = train("ctkd_instance", "epochs = 8", "digits.train_images = 1024", *STRONG, inputs)
    last = run.landscape[-1]
    assert last["quantiles"][0] > 20.8
    assert "T is at its upper bound 21 for at least 95 % of the probe's rows" in run.result.err


@pytest.mark.parametrize(
    ("objective", "bound"),
    [("NKD", "rises with T as far as the upper bound 21"), ("ABKD", "falls .* lower bound 1")],
)
def test_a_loss_without_a_maximum_in_t_is_reported_before_training(train, objective, bound):
    run = train("ctkd", *EPOCH, f"Method.objective = @{objective}")
    assert re.search(f"warning: from T = 15.6 the loss {bound}", run.result.err)


def test_of_two_maxima_the_one_that_t_climbs_counts():
    grid = [1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 21.0]
    measured = {"temperatures": grid, "bounds": [1.0, 21.0], "t_star": 21.0}
    losses = [0.0, 1.0, 2.0, 1.0, 3.0, 4.0, 5.0]
    assert without_maximum({**measured, "losses": losses, "temperature": 1.7}) == []
    (found,) = without_maximum({**measured, "losses": losses, "temperature": 8.0})
    assert "rises with T as far as the upper bound 21" in found


def test_rows_whose_temperatures_differ_are_not(train):
    run = train("ctkd_instance", *EPOCH)
    assert run.landscape[-1]["quantiles"]
    assert "bound" not in run.result.err


def test_a_temperature_that_only_touches_a_bound_is_not(train):
    """It begins there and leaves within the epoch."""
    away = ["GlobalTemperature.raw_init = -4.7", "SGD.policy_lr_scale = 40.0"]
    run = train("ctkd", "digits.train_images = 1024", "epochs = 1", *STRONG, *away)
    assert run.landscape[-1]["temperature"] > 2
    assert "bound" not in run.result.err


def test_weight_decay_on_the_raw_temperature_is_reported_before_training(train):
    decayed = ["SGD.policy_weight_decay = 5e-4"]
    run = train("ctkd", "epochs = 1", *decayed)
    assert run.result.err == (
        "warning: SGD.policy_weight_decay = 0.0005 pulls the raw temperature to 0, T to the middle "
        "of its range (T = 11), independent of the loss\n"
    )


def test_batch_normalization_that_sees_parts_of_a_step_is_reported(train):
    run = train("vanilla", "epochs = 1", "steps_per_epoch = 1", "Runtime.accumulate = 4")
    assert "batch normalizations take the statistics of each part, not of the step" in (
        run.result.err
    )


def test_weight_decay_alone_is_seen_in_the_landscape(train):
    """λ = 0, so that nothing else moves T: it goes to 11, away from where the loss is."""
    still = [*EPOCH, "Method.schedule = @ConstantLambda", "ConstantLambda.value = 0.0"]
    kept = train("ctkd", *still, workdir="kept")
    decayed = train("ctkd", *still, "SGD.policy_weight_decay = 0.05", workdir="decayed")
    assert {row["temperature"] for row in kept.landscape} == {kept.landscape[0]["temperature"]}
    temperatures = [row["temperature"] for row in decayed.landscape]
    assert temperatures[0] > temperatures[1] > temperatures[2] > 11


def test_weight_decay_is_no_matter_where_nothing_is_learned(train):
    assert train("kd", "epochs = 1", "SGD.policy_weight_decay = 5e-4").result.err == ""


def test_a_policy_without_bounds_is_never_at_one(train):
    @TEMPERATURES.register("free_temperature_of_test_faults")
    class Free(nn.Module):
        learned = True
        bounds = None

        def __init__(self) -> None:
            super().__init__()
            self.log = nn.Parameter(torch.tensor(2.0))

        def forward(self, student, teacher, progress):
            return self.log.exp()

    free = ["Method.policy = @free_temperature_of_test_faults", "SGD.policy_weight_decay = 1e-3"]
    run = train("ctkd", "epochs = 1", *free)
    assert run.result.err.startswith("warning: SGD.policy_weight_decay = 0.001 pulls")
    assert "bound" not in run.result.err
    assert run.landscape[-1]["bounds"] is None
