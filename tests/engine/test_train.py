"""The one loop: reproducible, paired by the seed, at the right position in every schedule."""

import math

import pytest
import torch
from torch import nn

from ctkd.adversary.schedules import CosineLambda
from ctkd.registry import MODELS, OBJECTIVES


@OBJECTIVES.register("Hinted_of_test_train")
class Hinted(nn.Module):
    """Cross-entropy of logits that pass through a layer of the objective's own."""

    needs_teacher = False

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(10, 10)

    def forward(self, student, teacher, targets, temperature, raw=None):
        return {"ce": nn.functional.cross_entropy(self.layer(student), targets, reduction="none")}

    def weights(self, position):
        return {"ce": 1.0}


METHODS = ["vanilla", "kd", "annealed", "ctkd", "ctkd_instance", "dkd", "dkd_ctkd"]


@MODELS.register("plain_network_of_test_train")
def plain_network(num_classes: int) -> nn.Module:
    """Without batch norm, so that a batch may be cut in parts without a difference."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, num_classes))


@pytest.fixture
def batches(monkeypatch):
    """Records the (index, view) pairs of every step of the runs that follow."""
    from ctkd.engine.tasks.images_in_memory import ClassificationTask

    seen = []
    real = ClassificationTask.batches

    def record(self, epoch, skip):
        for batch in real(self, epoch, skip):
            seen.append((epoch, batch.indices.tolist(), batch.views.tolist()))
            yield batch

    monkeypatch.setattr(ClassificationTask, "batches", record)
    return seen


def test_the_same_seed_gives_bit_identical_students(train, same):
    runs = [train("ctkd", workdir=f"run{n}") for n in range(2)]
    for name in ("student_last.pt", "student_best.pt"):
        assert same(runs[0].tensors(name), runs[1].tensors(name))
    timed = ("images_per_s", "data_wait")
    kept = [[{k: v for k, v in row.items() if k not in timed} for row in r.metrics] for r in runs]
    assert kept[0] == kept[1]
    assert runs[0].landscape == runs[1].landscape


def test_what_an_objective_learns_itself_is_trained_and_resumed(train, same, interrupted_at):

    def layer(run):
        state = torch.load(run.checkpoints[-1], weights_only=True)["distiller"]
        return {key: value for key, value in state.items() if key.startswith("objective.")}

    mine = "Method.objective = @Hinted_of_test_train"
    short, long = (train("vanilla", mine, f"epochs = {n}", workdir=f"e{n}") for n in (1, 3))
    assert layer(long).keys() == {"objective.layer.weight", "objective.layer.bias"}
    assert not same(layer(short), layer(long))
    with interrupted_at(3):
        train("vanilla", mine, "Runtime.checkpoint_steps = 1", workdir="cut", status=130)
    resumed = train("vanilla", mine, workdir="cut")
    assert same(layer(resumed), layer(long))
    assert same(resumed.tensors(), long.tensors())


def test_another_seed_gives_another_student(train, same):
    one, other = train("ctkd", workdir="a"), train("ctkd", "seed = 1", workdir="b")
    assert not same(one.tensors(), other.tensors())


@pytest.mark.parametrize(
    "bindings",
    [
        ("Runtime.checkpoint_steps = 1", "Runtime.keep_checkpoints = 1", "workers = 3"),
        ("Instrument.probe_size = 8", "Instrument.points = 9", "Instrument.trace_epochs = 0"),
    ],
)
def test_nothing_of_the_runtime_changes_the_student(train, same, bindings):
    one, other = train("ctkd", workdir="a"), train("ctkd", *bindings, workdir="b")
    assert same(one.tensors(), other.tensors())


def test_methods_of_one_seed_see_the_same_images_in_the_same_order_and_views(train, batches):
    sequences = []
    for method in METHODS:
        batches.clear()
        train(method, workdir=method)
        sequences.append(list(batches))
    assert len(sequences[0]) == 6
    assert all(sequence == sequences[0] for sequence in sequences)
    epochs = [[index for step in sequences[0] if step[0] == e for index in step[1]] for e in (1, 2)]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(128))


def test_with_lambda_0_a_learned_temperature_is_the_constant_one(train, same):
    """T stays at its first value, and the student cannot tell."""
    at = f"ConstantTemperature.temperature = {1 + 20 / (1 + math.exp(-1))}"
    frozen = train("ctkd", "Method.schedule = @ConstantLambda", "ConstantLambda.value = 0.0")
    constant = train("kd", at, workdir="constant")
    assert frozen.column("temperature") == pytest.approx([15.6212] * 3, abs=1e-4)
    for name, tensor in frozen.tensors().items():
        torch.testing.assert_close(tensor, constant.tensors()[name], rtol=1e-4, atol=1e-5)


def test_accumulated_parts_give_the_same_student_with_an_uneven_last_batch(train):
    """100 images in steps of 64: 64, and 36 in parts of 12; terms are divided by the whole."""
    bindings = [
        "student = @plain_network_of_test_train",
        "digits.train_images = 100",
        "SGD.lr = 0.5",
    ]
    whole = train("ctkd_instance", *bindings, workdir="whole")
    for count in (2, 3):
        parts = train(
            "ctkd_instance", *bindings, f"Runtime.accumulate = {count}", workdir=f"parts{count}"
        )
        for name, tensor in whole.tensors().items():
            torch.testing.assert_close(tensor, parts.tensors()[name], rtol=1e-4, atol=1e-6)
        for name in ("train_loss", "train_kd", "temperature", "gradient", "policy_gradient"):
            assert parts.column(name) == pytest.approx(whole.column(name), rel=1e-4)


def test_the_logged_rate_is_the_schedules_in_a_shortened_recipe(train):
    """Six epochs of a recipe of 240: each is forty, and the drops at 150, 180, 210 come early."""
    run = train(
        "kd",
        "epochs = 6",
        "recipe_epochs = 240",
        "SGD.lr = 0.08",
        "SGD.milestones = (120, 160)",
    )
    assert run.column("lr") == pytest.approx([0.08, 0.08, 0.08, 0.008, 0.0008, 0.0008], rel=1e-12)


def test_milestones_may_be_fractions_of_the_run(train):
    run = train("kd", "epochs = 6", "SGD.lr = 0.08", "SGD.milestones = (0.5, 0.9)")
    assert run.column("lr") == pytest.approx([0.08, 0.08, 0.08, 0.008, 0.008, 0.0008], rel=1e-12)


def test_the_rate_warms_up_step_by_step(train):
    """Two steps an epoch: an epoch's last step is at its position less a half."""
    run = train("kd", "SGD.lr = 0.08", "SGD.warmup_epochs = 2.0", "SGD.milestones = ()")
    assert run.column("lr") == pytest.approx([0.08 * 0.25, 0.08 * 0.75, 0.08], rel=1e-12)


def test_lambda_is_held_through_each_epoch_of_the_recipe(train):
    run = train("ctkd", "epochs = 4", "digits.train_images = 192")  # 3 steps an epoch
    published = [0.0245, 0.0955, 0.2061, 0.3455]
    assert run.column("lambda") == pytest.approx(published, abs=5e-5)
    text = (run.path / "temperature.csv").read_text().splitlines()
    assert text[0] == "step,epoch,temperature,low,high,lambda"
    rows = [[float(value) for value in line.split(",")] for line in text[1:]]
    assert [row[0] for row in rows] == list(range(1, 13))
    assert [row[5] for row in rows] == pytest.approx(
        [CosineLambda()(epoch) for epoch in range(4) for _ in range(3)], rel=1e-6
    )


def test_lambda_goes_as_fast_as_the_recipe_is_shortened(train):
    run = train("ctkd", "epochs = 5", "recipe_epochs = 10")
    # The last step of each epoch lies in the recipe's epochs 2, 4, 6, 8 and 10.
    published = [0.0955, 0.3455, 0.6545, 0.9045, 1.0]
    assert run.column("lambda") == pytest.approx(published, abs=5e-5)


def test_an_annealed_temperature_walks_its_whole_range(train):
    """10 → 1 in a straight line; at step k of 6 the progress is k / 6."""
    run = train("annealed", "AnnealedTemperature.start = 10.0", "AnnealedTemperature.end = 1.0")
    means = [10 - 9 * (step + 0.5) / 6 for step in (0, 2, 4)]
    assert run.column("temperature") == pytest.approx(means, rel=1e-5)


def test_the_temperature_is_traced_at_every_step_of_the_first_epochs(train):
    run = train("ctkd", "epochs = 4", "Instrument.trace_epochs = 2")
    lines = (run.path / "temperature.csv").read_text().splitlines()[1:]
    rows = [[float(value) for value in line.split(",")] for line in lines]
    assert [row[:2] for row in rows] == [[1, 0.5], [2, 1.0], [3, 1.5], [4, 2.0]]
    assert rows[0][2] == pytest.approx(15.6212, abs=1e-4)
    mean = (rows[0][2] + rows[1][2]) / 2
    assert run.column("temperature")[0] == pytest.approx(mean, rel=1e-6)


def test_evaluation_is_every_so_many_epochs_and_at_the_end(train):
    run = train("ctkd", "epochs = 5", "Recipe.eval_every = 2")
    assert [row["epoch"] for row in run.metrics if "test_top1" in row] == [2, 4, 5]
    assert [row["epoch"] for row in run.landscape] == [0, 2, 4, 5]
    assert [row["epoch"] for row in run.metrics if "regret" in row] == [2, 4, 5]


def test_best_and_last_are_both_kept(train, folder):
    run = train("vanilla", "epochs = 8", "SGD.lr = 0.4")
    tops = run.column("test_top1")
    summary = run.summary
    assert summary["last_top1"] == tops[-1]
    assert summary["best_top1"] == max(tops)
    assert summary["best_epoch"] == tops.index(max(tops)) + 1  # the first of equals
    assert "chosen_top1" not in summary


def test_of_equally_good_epochs_the_first_is_the_best(train):
    """At this rate nothing moves, and without batch norm nothing else does."""
    still = ["student = @plain_network_of_test_train", "SGD.lr = 1e-12"]
    run = train("vanilla", *still, "digits.validation = 50")
    assert len(set(run.column("test_top1"))) == 1
    assert (run.summary["best_epoch"], run.summary["chosen_epoch"]) == (1, 1)


def test_an_epoch_is_chosen_by_validation_images(train):
    run = train("vanilla", "epochs = 8", "SGD.lr = 0.4", "digits.validation = 200")
    validation, tops = run.column("validation_top1"), run.column("test_top1")
    chosen = validation.index(max(validation))
    assert run.summary["chosen_epoch"] == chosen + 1
    assert run.summary["chosen_top1"] == tops[chosen]
    assert run.summary["best_top1"] == max(tops)


def test_an_epoch_can_be_cut_short_for_trying_things_out(train, batches):
    train("vanilla", "steps_per_epoch = 1")
    assert [len(step[1]) for step in batches] == [64, 64, 64]


def test_the_policy_alone_is_without_weight_decay(train):
    """λ = 0: only decay could move the temperature, and with the published 5e-4 it does."""
    still = ["Method.schedule = @ConstantLambda", "ConstantLambda.value = 0.0", "SGD.lr = 0.5"]
    free = train("ctkd", *still, "SGD.weight_decay = 0.1", workdir="free")
    assert len(set(free.column("temperature"))) == 1
    decayed = train("ctkd", *still, "SGD.policy_weight_decay = 0.1", workdir="decayed")
    falling = decayed.column("temperature")
    assert falling[0] > falling[1] > falling[2] > 11


def test_the_policys_rate_is_the_students_times_its_scale(train):
    """From one first step: ΔT is proportional to the scale (to first order)."""
    first = ["epochs = 1", "steps_per_epoch = 2", "SGD.momentum = 0.0", "SGD.lr = 0.01"]
    moved = []
    for scale in (1.0, 2.0):
        run = train("ctkd", *first, f"SGD.policy_lr_scale = {scale}", workdir=f"scale{scale}")
        lines = (run.path / "temperature.csv").read_text().splitlines()[1:]
        before, after = (float(line.split(",")[2]) for line in lines)
        moved.append(before - after)
    assert moved[0] != 0
    assert moved[1] / moved[0] == pytest.approx(2.0, rel=0.02)


@pytest.mark.slow
def test_a_student_in_bfloat16_trains_and_its_losses_are_float32(train):
    run = train("ctkd", "precision = 'bfloat16'")
    assert all(tensor.dtype != torch.bfloat16 for tensor in run.tensors().values())
    assert all(math.isfinite(loss) for loss in run.column("train_loss"))
