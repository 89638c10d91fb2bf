"""`--trial`: any configuration ends in seconds, with the files of a full run, marked as such."""

import json
import os

import pytest

from ctkd.engine.config import trial
from ctkd.engine.diagnostics.warnings import faults_of_workers
from ctkd.engine.job import Job


@pytest.fixture
def run(command, tmp_path):
    """A trial of CTKD on the digits, its teacher included; its folder and the Result."""
    result = command("--gin_file=gin/digits/ctkd.gin", "--trial", "--workdir=run")
    assert result.status == 0, result.err
    return tmp_path / "run", result


def test_a_trial_is_short_whole_and_marked(run, own_cache):
    folder, result = run
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["name"], summary["epochs"], summary["steps"]) == ("ctkd-trial", 2, 4)
    assert summary["last_top1"] % (100 / 64) == 0  # of 64 test images
    assert {"landscape.png", "student_last.pt", "config.gin"} <= {p.name for p in folder.iterdir()}
    settings = json.loads((folder / "settings.json").read_text())
    assert (settings["name"], settings["recipe"]["Recipe.trial"]) == ("ctkd-trial", True)
    assert "this is a trial: 2 epochs of 2 steps of 16 samples, evaluated on 64" in result.err
    (last,) = [line for line in result.out.splitlines() if line.startswith("this was a trial")]
    assert "top1 is of 64 test samples after 4 steps, and means nothing" in last
    assert result.out.endswith(f"{last}\n")
    assert "published" not in result.out
    assert (summary["evaluated_samples"], summary["teacher_claimed"]) == (64, None)
    (teacher,) = (own_cache / "teachers").glob("*/summary.json")
    assert json.loads(teacher.read_text())["steps"] == 4


@pytest.mark.parametrize(
    ("files", "batch"),
    [
        (["gin/cifar100/dkd_ctkd.gin"], 16),
        (["gin/imagenet/ctkd.gin", "gin/imagenet/sample.gin"], 4),
        (["gin/coco/kd.gin"], 2),
        (["gin/language/ctkd.gin"], 4),
    ],
)
def test_every_kind_of_data_is_cut(files, batch):
    made = Job(files, ["trial = True"]).build(meta=True)
    assert (made.recipe.epochs, made.recipe.steps_per_epoch) == (2, 2)
    assert made.recipe.batch_size == batch
    assert made.instrument.probe_size <= batch
    assert trial.evaluated(made.recipe, made.dataset.kind) <= 64
    whole = Job(files).build(meta=True)
    assert made.recipe_epochs == whole.recipe_epochs  # its schedules are the whole run's
    assert "Recipe.trial" not in whole.settings["recipe"]
    assert trial.evaluated(whole.recipe, whole.dataset.kind) is None


def test_the_pictures_of_a_trial_are_small():
    made = Job(["gin/coco/kd.gin"], ["trial = True"]).build(meta=True)
    assert (max(made.dataset.short_sides), made.dataset.long_side) == (256, 512)
    assert made.dataset.offers["min_size"] == 256  # of the detectors


def test_a_trial_starts_no_more_workers_than_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    files = ["gin/imagenet/kd.gin"]  # with 8 workers
    made, whole = (Job(files, params).build(meta=True) for params in (["trial = True"], []))
    assert (made.runtime.workers, whole.runtime.workers) == (2, 8)
    (fault,) = faults_of_workers(made)
    assert fault.endswith("2 cores that this process may use: the trial starts 2")
    assert faults_of_workers(whole)[0].endswith("Set --workers=2")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert not faults_of_workers(whole)


def test_each_rank_of_a_trial_has_two_samples_in_each_part(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    params = ["trial = True", "Runtime.accumulate = 2"]
    assert Job(["gin/imagenet/kd.gin"], params).build(meta=True).recipe.batch_size == 16
