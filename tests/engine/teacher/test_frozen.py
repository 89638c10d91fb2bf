"""The frozen teacher: judged before anything is trained, trained once and shared."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from ctkd.engine.task import Batch
from ctkd.engine.teacher.frozen import FrozenTeacher
from ctkd.models.weights.match import fingerprint
from ctkd.registry import MODELS

CPU = torch.device("cpu")


@pytest.fixture
def weights(tmp_path):
    """Writes a digits teacher with its first weights, those of a seed; the file's path."""

    def make(seed=0, name="teacher.pt"):
        torch.manual_seed(seed)
        torch.save(MODELS.get("digits_teacher")().state_dict(), tmp_path / name)
        return tmp_path / name

    return make


def given(path):
    return f"teacher_weights = {str(path)!r}"


def batch(images):
    rows = torch.arange(len(images))
    return Batch(images, rows % 10, rows, rows, len(images))


def test_a_teacher_only_gives_logits():
    torch.manual_seed(0)
    network = MODELS.get("digits_teacher")()
    images = torch.randn(16, 1, 8, 8)
    network(images)  # so that the running statistics are not the first ones
    expected = network.eval()(images).detach().clone()
    network.train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    teacher = FrozenTeacher(network, CPU, "float32", "f" * 16)
    logits = teacher(batch(images))
    torch.testing.assert_close(logits, expected)
    assert not logits.requires_grad
    assert not any(p.requires_grad for p in network.parameters())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert teacher.fingerprint == "f" * 16


def test_its_logits_can_be_kept_for_a_gradient():
    teacher = FrozenTeacher(MODELS.get("digits_teacher")(), CPU, "float32", "")
    temperature = torch.tensor(2.0, requires_grad=True)
    (teacher(batch(torch.randn(4, 1, 8, 8))) / temperature).square().sum().backward()
    assert temperature.grad.isfinite()


def test_in_bfloat16_the_network_computes_so_and_the_logits_are_float32():
    seen = []

    class Watched(nn.Linear):
        def forward(self, inputs):
            seen.append(super().forward(inputs).dtype)
            return super().forward(inputs)

    teacher = FrozenTeacher(nn.Sequential(nn.Flatten(), Watched(64, 10)), CPU, "bfloat16", "")
    assert teacher(batch(torch.randn(4, 1, 8, 8))).dtype == torch.float32
    assert seen == [torch.bfloat16]


def test_the_teacher_is_evaluated_first_and_its_accuracy_kept(train, teacher_file):
    run = train("kd", "Teacher.published_accuracy = 99.5")
    summary = run.summary
    trained = json.loads((teacher_file.parent / "summary.json").read_text())
    assert summary["teacher_top1"] == trained["last_top1"]
    assert summary["teacher_claimed"] == 99.5
    assert f"teacher: top1 {summary['teacher_top1']:.2f} % (published 99.50)" in run.result.out
    line = run.result.out.splitlines().index(
        f"teacher: top1 {summary['teacher_top1']:.2f} % (published 99.50)"
    )
    assert run.result.out.splitlines()[line + 1].startswith("epoch 1/3")


def test_a_teacher_below_the_floor_is_refused_before_anything_is_trained(train, weights):
    run = train("kd", given(weights()), "Teacher.published_accuracy = 97.0", status=2)
    assert run.result.err.startswith("ctkd: the teacher scores ")
    assert "(published: 97.00 %), below Teacher.min_accuracy = 90.0: " in run.result.err
    assert run.result.err.count("\n") == 1
    assert not (run.path / "metrics.jsonl").exists()
    assert run.checkpoints == []


def test_after_a_wrong_teacher_the_right_one_goes(train, weights):
    """The refused run trained nothing, so it must not bind the folder to its teacher."""
    train("kd", given(weights()), status=2)
    assert train("kd").summary["finished"]


def test_without_a_floor_any_teacher_goes(train, weights):
    run = train("kd", given(weights()), "Teacher.min_accuracy = None")
    assert run.summary["teacher_top1"] < 50


def test_a_moved_teacher_is_the_same_and_another_is_refused(train, weights):
    one, free = weights(0), "Teacher.min_accuracy = None"
    short = ["epochs = 2", free]
    run = train("kd", given(one), *short)
    moved = one.rename(one.with_name("moved.pt"))
    assert "finished; nothing is left to train" in train("kd", given(moved), *short).result.out
    state = torch.load(moved, weights_only=True)
    assert run.settings["recipe"]["Teacher.fingerprint"] == fingerprint(state)


def test_a_finished_run_does_not_answer_for_another_teacher(train, weights):
    one, other = weights(0, "one.pt"), weights(1, "other.pt")
    short = ["epochs = 1", "Teacher.min_accuracy = None"]
    run = train("kd", given(one), *short)
    kept = {name: (run.path / name).read_bytes() for name in ("settings.json", "config.gin")}
    refused = train("kd", given(other), *short, status=2)
    assert "was begun with another teacher: its fingerprint is" in refused.result.err
    output = train("kd", given(one), *short, "precision = 'bfloat16'").result.out
    assert "it was made with Runtime.precision = 'float32' there, 'bfloat16' here" in output
    assert {name: (run.path / name).read_bytes() for name in kept} == kept


def test_in_the_middle_of_a_run_another_teacher_is_refused(train, weights, interrupted_at):
    one, other = weights(0, "one.pt"), weights(1, "other.pt")
    often = ["Teacher.min_accuracy = None", "Runtime.checkpoint_steps = 1"]
    with interrupted_at(3):
        train("kd", given(one), *often, status=130)
    run = train("kd", given(other), *often, status=2)
    assert "was begun with another teacher" in run.result.err
    assert train("kd", given(one), *often).summary["finished"]


QUICK = [
    "steps_per_epoch = 2",
    "epochs = 1",
]  # far below Teacher.min_accuracy, which a cut run forgives


@pytest.fixture
def shared(command, monkeypatch, tmp_path):
    """A run whose teacher is trained for it, cut short, in runs/digits; the Result."""
    monkeypatch.setattr("ctkd.results.figures.save.save_figures", lambda record, folder: [])

    def call(method, *bindings):
        settings = [*QUICK, "Runtime.tensorboard = False", "Runtime.figures = False", *bindings]
        result = command(
            f"--gin_file=gin/digits/{method}.gin", *(f"--gin_param={b}" for b in settings)
        )
        assert result.status == 0, result.err
        return result

    return call


def teachers(tmp_path):
    return sorted((tmp_path / "cache/teachers").iterdir())


def test_runs_beside_each_other_share_a_teacher_that_is_trained_once(shared, tmp_path):
    first = shared("kd")
    (home,) = teachers(tmp_path)
    before = (home / "student_last.pt").stat().st_mtime_ns
    assert "training the teacher, once: " in first.out
    assert "  teacher | epoch " in first.out
    for method, binding in (("ctkd", "seed = 1"), ("dkd", "SGD.lr = 0.01")):
        assert "training the teacher" not in shared(method, binding).out
    assert teachers(tmp_path) == [home]
    assert (home / "student_last.pt").stat().st_mtime_ns == before
    prints = set()
    for path in (tmp_path / "runs/digits").glob("*/*/settings.json"):
        prints.add(json.loads(path.read_text())["recipe"]["Teacher.fingerprint"])
    assert prints == {fingerprint(torch.load(home / "student_last.pt", weights_only=True))}


def test_a_teacher_has_a_seed_of_its_own_and_its_runs_cuts(shared, tmp_path):
    shared("kd", "seed = 3")
    (home,) = teachers(tmp_path)
    settings = json.loads((home / "settings.json").read_text())
    assert settings["seed"]["Seed.seed"] not in (0, 3)
    assert settings["recipe"]["Recipe.steps_per_epoch"] == 2
    shared("kd", "steps_per_epoch = 3")
    assert len(teachers(tmp_path)) == 2


def test_a_teacher_whose_training_was_interrupted_is_trained_on(shared, tmp_path):
    shared("kd")
    (home,) = teachers(tmp_path)
    whole = (home / "student_last.pt").read_bytes()
    (home / "summary.json").unlink()
    (home / "student_last.pt").unlink()
    shared("dkd")
    assert (home / "student_last.pt").read_bytes() == whole


def test_a_teachers_weights_that_were_lost_come_back_from_its_checkpoint(shared, tmp_path):
    shared("kd")
    (home,) = teachers(tmp_path)
    whole = (home / "student_last.pt").read_bytes()
    (home / "student_last.pt").unlink()
    again = shared("dkd")
    assert "teacher | resumed at step " in again.out
    assert (home / "student_last.pt").read_bytes() == whole


def test_after_its_teachers_training_a_run_has_its_own_threads(shared, monkeypatch):
    given = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    shared("kd", "Runtime.threads = 2")  # not the macro, which the teacher would have too
    assert given == [2, 1, 2]  # set, then by the teacher, then again


def test_a_message_says_what_was_taken_out_of_a_teachers_file(train, weights, tmp_path):
    state = torch.load(weights(), weights_only=True)
    named = {f"module.student.{key}": value for key, value in state.items()}
    torch.save({"model": named}, tmp_path / "distiller.pth")
    result = train(
        "kd", given(tmp_path / "distiller.pth"), "epochs = 1", "Teacher.min_accuracy = None"
    )
    assert f"teacher: weights from {tmp_path}/distiller.pth (model: module.student.)" in (
        result.result.out
    )


def test_teachers_can_be_kept_elsewhere(shared, tmp_path):
    shared("kd", f"Runtime.teachers_dir = {str(tmp_path / 'elsewhere')!r}")
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1
    assert not (tmp_path / "cache").exists()


def test_without_weights_and_without_a_run_the_message_says_what_to_give(train):
    run = train("kd", "Teacher.run = None", "teacher_weights = None", status=2)
    assert run.result.err.startswith("ctkd: the teacher's weights are not given: set the macro")


@pytest.mark.slow
def test_two_processes_at_once_train_the_teacher_once(tmp_path, environment):
    quiet = "Runtime.tensorboard = False", "Runtime.figures = False"
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ctkd.main",
                f"--gin_file=gin/digits/{method}.gin",
                *(f"--gin_param={binding}" for binding in (*QUICK, "epochs = 2", *quiet)),
            ],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for method in ("kd", "ctkd")
    ]
    ended = [(*process.communicate(timeout=300), process.returncode) for process in processes]
    assert [status for *_, status in ended] == [0, 0], ended
    trained = [out.count("training the teacher, once") for out, *_ in ended]
    assert sorted(trained) == [0, 1]
    assert len(teachers(tmp_path)) == 1
