"""Runs that share a process: each ends with the bits that it has alone, and fails alone."""

import pytest

from ctkd.engine.interrupt import request_stop
from ctkd.engine.tasks.images import ImageTask
from ctkd.engine.train import Trainer

INSTANCE = "gin/digits/ctkd_instance.gin"  # batch statistics and random first weights in the policy
# Rows with features, the samples' classes, and a rate and a length of its own.
CRD = """include 'gin/digits/kd.gin'
Method.features = [@CRD]
CRD.negatives = 32
SGD.lr = 0.05
Recipe.epochs = 2
"""
MLKD = "include 'gin/digits/kd.gin'\nMethod.objective = @MLKD\n"  # a second, strong view


@pytest.fixture
def methods(tmp_path):
    """The Gin files of three methods by name."""
    for name, text in (("crd", CRD), ("mlkd", MLKD)):
        (tmp_path / f"{name}.gin").write_text(text)
    others = {name: str(tmp_path / f"{name}.gin") for name in ("crd", "mlkd")}
    return {"ctkd_instance": INSTANCE, **others}


@pytest.fixture
def train_group(command, arguments, tmp_path, folder):
    """Trains a run for each Gin file, or for each of them and each seed, in one process."""

    def call(files, *bindings, workdir="group", status=0, flags=()):
        _, *words = arguments("", *bindings, workdir=workdir)
        chosen = [f"--methods={','.join(files)}"] if len(files) > 1 else [f"--gin_file={files[0]}"]
        result = command(*chosen, *words, *flags)
        assert result.status == status, result.err
        return folder(tmp_path / workdir, result)

    return call


@pytest.fixture
def stopped_at(monkeypatch):
    """Requests a stop, as a signal does, once: after the n-th step of a run with seed 1."""

    def stop(step):
        real = Trainer.train_step

        def train_step(self, batch):
            real(self, batch)
            if self.run.seed == 1 and self.progress.steps == step:
                monkeypatch.setattr(Trainer, "train_step", real)
                assert request_stop()

        monkeypatch.setattr(Trainer, "train_step", train_step)

    return stop


def test_each_student_has_the_bits_of_its_run_alone(train_group, methods, folder, same, stopped_at):
    """Also where the group was stopped in the middle of an epoch and started again."""
    runs = [("ctkd_instance", 0), ("ctkd_instance", 1), ("crd", 0), ("mlkd", 1)]
    alone = [
        train_group([methods[name]], f"seed = {seed}", workdir=f"{name}{seed}")
        for name, seed in runs
    ]
    files, seeds = list(methods.values()), ["--seeds=0,1"]
    stopped_at(3)
    stopped = train_group(files, flags=seeds, status=130)
    assert "6 of 6 runs did not finish" in stopped.result.err
    group = train_group(files, flags=seeds)
    assert "ctkd_instance, seed 1 | resumed at step 3, epoch 2" in group.result.out
    for (name, seed), run in zip(runs, alone, strict=True):
        member = folder(group.path / name / f"seed{seed}")
        assert same(member.tensors(), run.tensors())
        assert member.column("test_loss") == run.column("test_loss")


def test_a_run_that_is_not_finite_ends_alone(train_group, tmp_path, folder):
    """Its message is printed at once; the others are finished."""
    (tmp_path / "wild.gin").write_text("include 'gin/digits/kd.gin'\nSGD.lr = 1e30\n")
    files = [str(tmp_path / "wild.gin"), "gin/digits/kd.gin"]
    group = train_group(files, "epochs = 2", status=3)
    assert "wild, seed 0 | warning: this run ends: " in group.result.err
    assert "1 of 2 runs did not finish:\n  wild, seed 0: " in group.result.err
    assert folder(group.path / "kd").summary["finished"]


@pytest.mark.parametrize(
    ("files", "flags", "message"),
    [
        (["gin/digits/ctkd.gin"], ["--seeds=0,0"], "the same work directory"),
        (["gin/digits/ctkd.gin"], ["--seeds=0,x"], "expected whole numbers, such as 0,1,2"),
        (
            ["gin/digits/kd.gin", "large.gin"],
            ["--dry_run"],
            "Recipe.batch_size = 64 there, 32 here",
        ),
        (["gin/digits/kd.gin", "large.gin"], ["--mode=evaluate"], "takes one: give its --workdir"),
    ],
)
def test_a_group_that_cannot_be(train_group, tmp_path, files, flags, message):
    (tmp_path / "large.gin").write_text("include 'gin/digits/kd.gin'\nRecipe.batch_size = 32\n")
    assert message in train_group(files, flags=flags, status=2).result.err


def test_a_process_of_torchrun_is_no_group(train_group, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    group = train_group(["gin/digits/kd.gin"], flags=["--seeds=0,1"], status=2)
    assert "leave --seeds and --methods out under torchrun" in group.result.err


def test_the_teacher_is_evaluated_once(train_group, monkeypatch):
    evaluated = []
    real = ImageTask.evaluate

    def evaluate(self, model):
        evaluated.append(model)
        return real(self, model)

    monkeypatch.setattr(ImageTask, "evaluate", evaluate)
    files = ["gin/digits/vanilla.gin", "gin/digits/kd.gin", "gin/digits/ctkd.gin"]
    train_group(files, "epochs = 1")
    assert len(evaluated) == 4  # the teacher, and each student after its epoch
