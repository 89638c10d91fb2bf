"""NaN or infinity anywhere stops the run, names where it began, and nothing bad is saved."""

import math

import pytest
import torch

from ctkd.losses.objectives import KD
from ctkd.registry import MODELS, OBJECTIVES, TEMPERATURES
from ctkd.temperature import GlobalTemperature

TRAINED = {"steps": 0}


@pytest.fixture(autouse=True)
def _count_from_zero():
    TRAINED["steps"] = 0


def is_step():
    """Whether this call belongs to a training step, and not to the instrument or a trial."""
    return torch.is_grad_enabled()


@OBJECTIVES.register("breaking_kd_of_test_nonfinite")
class BreakingKD(KD):
    """KD whose `term` is multiplied by `factor` from the `step`-th training step on."""

    def __init__(self, step: int = 4, term: str = "kd", factor: str = "nan") -> None:
        super().__init__()
        self.step, self.term, self.factor = step, term, float(factor)

    def __call__(self, student, teacher, targets, temperature, raw=None):
        terms = super().__call__(student, teacher, targets, temperature, raw)
        if is_step() and student.dtype == torch.float32:  # the instrument computes in float64
            TRAINED["steps"] += 1
            if TRAINED["steps"] >= self.step:
                terms[self.term] = terms[self.term] * self.factor
        return terms


@TEMPERATURES.register("breaking_temperature_of_test_nonfinite")
class BreakingTemperature(GlobalTemperature):
    """T is infinite from the `step`-th training step on."""

    def __init__(self, step: int = 4) -> None:
        super().__init__()
        self.step = step

    def forward(self, student, teacher, progress):
        temperature = super().forward(student, teacher, progress)
        if is_step() and student.dtype == torch.float32:
            TRAINED["steps"] += 1
            if TRAINED["steps"] >= self.step:
                return temperature * math.inf
        return temperature


class BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        TRAINED["steps"] += 1
        return gradient * (math.nan if TRAINED["steps"] >= 4 else 1.0)


@MODELS.register("breaking_student_of_test_nonfinite")
def breaking_student(num_classes: int) -> torch.nn.Module:
    """Whose forward is fine, and whose gradient is NaN from the fourth step on."""

    class Student(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(64, num_classes)

        def forward(self, images):
            return BadGradient.apply(self.layer(images.flatten(1)))

    return Student()


def objective(**values):
    name = "breaking_kd_of_test_nonfinite"
    settings = [f"{name}.{key} = {value!r}" for key, value in values.items()]
    return [f"Method.objective = @{name}", *settings]


def check_stopped(run, message):
    """Two steps an epoch, the fourth is bad: the first epoch is kept, the second is not."""
    assert run.result.err == f"ctkd: stopped: {message}\n"
    assert [int(path.name[5:15]) for path in run.checkpoints] == [2]
    assert run.column("epoch") == [1]
    assert not (run.path / "summary.json").exists()
    for name in ("student_last.pt", "student_best.pt"):
        assert all(tensor.isfinite().all() for tensor in run.tensors(name).values())


FIRST = "was NaN or infinite first at step 4 (epoch 2); nothing after the last checkpoint was saved"


@pytest.mark.parametrize("factor", ["nan", "inf"])
@pytest.mark.parametrize("term", ["ce", "kd"])
def test_a_term_names_the_first_step_and_itself(train, factor, term):
    run = train("ctkd", *objective(term=term, factor=factor), status=3)
    check_stopped(run, f"{term} {FIRST}")


def test_a_temperature_names_the_first_step_and_itself(train):
    policy = "Method.policy = @breaking_temperature_of_test_nonfinite"
    check_stopped(train("ctkd", policy, status=3), f"temperature {FIRST}")


def test_a_gradient_names_the_first_step_and_itself(train):
    run = train("vanilla", "student = @breaking_student_of_test_nonfinite", status=3)
    check_stopped(run, f"gradient {FIRST}")


def test_a_bad_step_early_in_an_epoch_is_the_one_that_is_named(train):
    """It is read back only at the epoch's end, when all that followed is bad as well."""
    many = ["digits.train_images = 640", *objective(step=12)]
    run = train("ctkd", *many, status=3)
    assert "kd was NaN or infinite first at step 12 (epoch 2)" in run.result.err
    assert [int(path.name[5:15]) for path in run.checkpoints] == [10]


def test_nothing_bad_is_saved_by_steps_either(train):
    often = ["Runtime.checkpoint_steps = 1", "Runtime.keep_checkpoints = 9", *objective(step=4)]
    run = train("ctkd", *often, status=3)
    assert [int(path.name[5:15]) for path in run.checkpoints] == [1, 2, 3]


def test_a_learning_rate_that_makes_the_weights_overflow_is_reported(train):
    run = train("vanilla", "SGD.lr = 1e38", status=3)
    assert run.result.err.startswith("ctkd: stopped: ")
    assert "NaN or infinite" in run.result.err
    assert not list(run.path.glob("*.pt"))
    assert run.checkpoints == []


def test_weights_that_overflow_in_the_very_last_step_are_not_saved(train):
    """The loss of the last step was still finite; only the weights tell."""
    one = ["epochs = 1", "steps_per_epoch = 1", "SGD.lr = 3e38", "SGD.milestones = ()"]
    run = train("vanilla", *one, "student = @overflowing_of_test_nonfinite", status=3)
    assert "the weights of the student became NaN or infinite by step 1 (learning rate 3e+38)" in (
        run.result.err
    )
    assert not list(run.path.glob("*.pt"))


@MODELS.register("overflowing_of_test_nonfinite")
def overflowing(num_classes: int) -> torch.nn.Module:
    """Whose gradient is large enough to overflow, in its weights, at the largest of rates."""

    class Student(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(64, num_classes)

        def forward(self, images):
            return 100 * self.layer(images.flatten(1))

    return Student()


def test_a_policy_that_overflows_is_not_saved(train):
    strong = ["Method.schedule = @ConstantLambda", "ConstantLambda.value = 1e4"]
    run = train("ctkd", *strong, "SGD.policy_lr_scale = 3e38", status=3)
    assert "the weights of the temperature policy became NaN or infinite" in run.result.err
    assert run.checkpoints == []


def test_a_stopped_run_stops_again_at_the_same_step_and_can_be_begun_anew(train):
    bad = objective(step=4)
    train("ctkd", *bad, status=3)
    TRAINED["steps"] = 2  # the first two are in the checkpoint
    again = train("ctkd", *bad, status=3)
    assert f"kd {FIRST}" in again.result.err
    TRAINED["steps"] = -10
    fresh = train("ctkd", *bad, flags=["--fresh"])
    assert fresh.summary["finished"]
