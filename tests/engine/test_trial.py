"""`--trial`: any configuration ends in seconds, with the files of a full run, marked as such."""

import json

import pytest

from ctkd.engine.config import trial
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
    (teacher,) = (own_cache / "teachers").glob("*/summary.json")
    assert json.loads(teacher.read_text())["steps"] == 4


@pytest.mark.parametrize(
    ("files", "batch"),
    [
        (["gin/cifar100/dkd_ctkd.gin"], 16),
        (["gin/imagenet/ctkd.gin", "gin/imagenet/sample.gin"], 16),
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
