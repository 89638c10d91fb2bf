"""What a run leaves behind: files that others can read, in percent, each epoch once."""

import csv
import errno
import json
import os
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ctkd.engine.distributed.world import World
from ctkd.engine.output.records import keep_best
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.progress import Progress
from ctkd.registry import MODELS

pytestmark = pytest.mark.xdist_group("records")  # one process for all: they share a run
FIGURES = [f"{stem}.{kind}" for stem in ("landscape", "curves", "rows") for kind in ("png", "pdf")]
EVERY_EPOCH = {"epoch", "train_loss", "lr", "lambda", "temperature", "test_top1", "images_per_s"}


@pytest.fixture(scope="module")
def whole(teacher_file, tmp_path_factory):
    """A CTKD run with everything it writes; the work directory, and what it printed."""
    from ctkd.engine.job import Job, execute
    from ctkd.engine.output.console import Console

    path = tmp_path_factory.mktemp("whole") / "run"
    small = ["epochs = 3", "digits.train_images = 128", "digits.validation = 60"]
    job = Job(
        ["gin/digits/ctkd_instance.gin"],
        [*small, f"teacher_weights = {str(teacher_file)!r}"],
        str(path),
    )
    execute(job, Console())
    return path


@pytest.mark.parametrize("lower", [False, True])
def test_the_best_of_metrics_that_are_all_on_one_side_of_0(tmp_path, lower):
    """A perplexity, say, and one with its sign turned; the validation chooses on its own."""
    progress, folder = Progress(), Workdir(tmp_path, World(1, 2))  # rank 1 writes no weights
    task = SimpleNamespace(monitor="test_x", lower_is_better=lower)
    sign = 1 if lower else -1
    for epoch, value in enumerate((9.0, 4.0, 5.0, float("nan")), 1):
        record = {"epoch": epoch, "test_x": sign * value, "validation_x": sign * (10 - value)}
        keep_best(record, task, None, progress, folder)
    assert progress.best == {
        **{"best": sign * 4.0, "best_epoch": 2, "validation": sign * 1.0},
        **{"chosen": sign * 9.0, "chosen_epoch": 1},
    }


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_work_directory_holds_what_design_and_readme_list(whole):
    names = {path.name for path in whole.iterdir() if not path.name.startswith(".")}
    assert names == {
        "config.gin",
        "settings.json",
        "metrics.jsonl",
        "landscape.jsonl",
        "temperature.csv",
        "temperatures.pt",
        "predictions.csv",
        "provenance.jsonl",
        "rows.csv",  # the policy has one T per row
        "summary.json",
        "checkpoints",
        "tensorboard",
        "student_last.pt",
        "student_best.pt",
        *FIGURES,
    }


def test_metrics_have_one_object_per_epoch_from_1_with_the_keys_others_rely_on(whole):
    metrics = rows(whole / "metrics.jsonl")
    assert [row["epoch"] for row in metrics] == [1, 2, 3]
    for row in metrics:
        assert row.keys() >= EVERY_EPOCH
        assert row.keys() >= {"train_ce", "train_kd", "t_star", "regret", "validation_top1"}
        assert 0 <= row["test_top1"] <= row["test_top5"] <= 100
        assert row["temperature_low"] <= row["temperature"] <= row["temperature_high"]
        quantiles = [row[f"temperature_q{q}"] for q in ("05", "25", "50", "75", "95")]
        assert quantiles == sorted(quantiles)
        assert row["train_loss"] == pytest.approx(
            0.1 * row["train_ce"] + 0.9 * row["train_kd"], rel=1e-5
        )
    tops = [row["test_top1"] for row in metrics]
    assert all(top * 360 / 100 == pytest.approx(round(top * 360 / 100)) for top in tops)  # percent


def test_speed_is_of_the_training_steps_alone(whole):
    """The first step of a process compiles and warms up, and is left out; so is evaluation."""
    first, *others = (row["images_per_s"] for row in rows(whole / "metrics.jsonl"))
    assert first > 0
    assert all(speed > 100 for speed in others)


def test_the_summary_is_flat_and_says_what_was_measured(whole):
    summary = json.loads((whole / "summary.json").read_text())
    metrics = rows(whole / "metrics.jsonl")
    assert not any(isinstance(value, (dict, list)) for value in summary.values())
    expected = {
        "finished": True,
        "name": "ctkd_instance",
        "dataset": "digits",
        "student": "digits_student",
        "teacher": "digits_teacher",
        "seed": 0,
        "epochs": 3,
        "steps": 6,
        "primary": "test_top1",
        "last_top1": metrics[-1]["test_top1"],
        "best_top1": max(row["test_top1"] for row in metrics),
        "temperature": metrics[-1]["probe_temperature"],
        "t_star": metrics[-1]["t_star"],
        "regret": metrics[-1]["regret"],
    }
    assert {key: summary[key] for key in expected} == expected
    assert summary["teacher_top1"] > 90
    assert {"chosen_top1", "chosen_epoch", "best_epoch", "images_per_s", "seconds"} <= set(summary)


def test_without_a_teacher_the_summary_has_none(train):
    summary = train("vanilla", "epochs = 1").summary
    assert summary["teacher"] is None
    assert "teacher_top1" not in summary
    assert summary["temperature"] is None


def test_the_weights_are_plain_state_dicts_for_anyones_use(whole):
    for name in ("student_last.pt", "student_best.pt"):
        state = torch.load(whole / name, weights_only=True)
        MODELS.get("digits_student")(num_classes=10).load_state_dict(state)
        assert all(tensor.device.type == "cpu" for tensor in state.values())
        assert all(tensor.is_contiguous() for tensor in state.values())


def test_the_landscape_has_a_grid_at_every_evaluation_from_before_the_first_step(whole):
    landscape = rows(whole / "landscape.jsonl")
    assert [row["epoch"] for row in landscape] == [0, 1, 2, 3]
    for row in landscape:
        assert len(row["temperatures"]) == len(row["losses"]) == 65
        assert row["loss_star"] >= max(row["losses"])
        assert row["bounds"] == [1.0, 21.0]
        assert len(row["quantiles"]) == 5


def test_the_trace_of_t_has_every_step(whole):
    with open(whole / "temperature.csv") as file:
        trace = list(csv.DictReader(file))
    assert [int(row["step"]) for row in trace] == [1, 2, 3, 4, 5, 6]
    assert float(trace[0]["temperature"]) == pytest.approx(15.6212, abs=1e-4)
    for row in trace:
        low, mean, high = (float(row[name]) for name in ("low", "temperature", "high"))
        assert low * (1 - 1e-6) <= mean <= high * (1 + 1e-6)


def test_the_figures_are_whole_images_and_documents(whole):
    for name in FIGURES:
        if name.endswith(".png"):
            with Image.open(whole / name) as image:
                image.load()
                assert min(image.size) > 500
                assert len(image.convert("RGB").getcolors(maxcolors=2**24)) > 50
        else:
            data = (whole / name).read_bytes()
            assert data.startswith(b"%PDF-")
            assert b"%%EOF" in data[-20:]


def test_tensorboard_has_every_epochs_numbers_and_the_figures(whole):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from ctkd.engine.output.tensorboard import tag_of

    (folder,) = (whole / "tensorboard").iterdir()
    assert folder.name == f"{json.loads((whole / 'settings.json').read_text())['name']}-seed0"
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata
    steps = EventAccumulator(str(folder / "steps"))
    steps.Reload()
    trace = (whole / "temperature.csv").read_text().splitlines()[1:]
    found = [(event.step, event.value) for event in steps.Scalars("steps/temperature")]
    expected = [(int(line.split(",")[0]), float(line.split(",")[2])) for line in trace]
    assert found == [(step, pytest.approx(value, rel=1e-5)) for step, value in expected]
    metrics = rows(whole / "metrics.jsonl")
    for name in ("train_loss", "test_top1", "temperature", "lambda", "lr", "t_star", "regret"):
        written = [(event.step, event.value) for event in events.Scalars(tag_of(name))]
        assert written == [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in metrics]
    assert {"curves", "landscape"} <= set(events.Tags()["images"])
    (image,) = events.Images("landscape")
    assert image.encoded_image_string.startswith(b"\x89PNG")


def test_tensorboard_can_be_left_out(train):
    assert not (train("vanilla", "epochs = 1").path / "tensorboard").exists()


def test_after_a_resumption_tensorboard_has_each_epoch_once(train, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from ctkd.engine.train import Trainer

    real = Trainer.finish_epoch

    def stop(self):
        record = real(self)
        if self.epoch - 1 == 2:
            raise KeyboardInterrupt
        return record

    board = "Runtime.tensorboard = True"
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "finish_epoch", stop)
        train("kd", board, status=130)
    run = train("kd", board)
    events = EventAccumulator(str(run.path / "tensorboard" / "kd-seed0"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]


def test_a_disk_that_is_full_when_the_figures_are_drawn_is_a_clear_error(
    train, command, arguments, monkeypatch
):
    """Training and weights are complete by then; with room again the command finishes."""

    def full(record, folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = train("vanilla", "epochs = 1")
    (run.path / "summary.json").unlink()
    with monkeypatch.context() as patched:
        patched.setattr("ctkd.results.figures.save.save_figures", full)
        drawn = arguments("vanilla", "epochs = 1", "Runtime.figures = True", workdir="run")
        stopped = command(*drawn)
    assert stopped.status == 2
    assert stopped.err.startswith("ctkd: cannot write the figures to run: No space left on device")
    assert stopped.err.count("\n") == 1
    assert train("vanilla", "epochs = 1").summary["finished"]
