"""From a command line to a finished run: resumed, repeated, begun afresh, evaluated."""

import json
import pathlib
import pickle
import shutil

import pytest
import torch

from ctkd.engine.job import Job, evaluate, execute
from ctkd.engine.output.console import Console
from ctkd.errors import ConfigError


@pytest.fixture
def job(arguments, tmp_path, monkeypatch):
    """A Job as a command line would make it, run in tmp_path without figures."""
    monkeypatch.chdir(tmp_path)

    def make(method, *bindings, **more):
        given = [a.partition("=")[2] for a in arguments(method, *bindings) if "gin_param" in a]
        return Job([f"gin/digits/{method}.gin"], given, **more)

    return make


def trained_files(run):
    return {
        path.relative_to(run.path): path.stat().st_mtime_ns
        for path in run.path.rglob("*")
        if path.suffix in (".pt", ".jsonl") or path.name == "summary.json"
    }


def test_a_job_is_plain_values_that_can_be_sent_elsewhere(job):
    made = job("ctkd", "seed = 1", workdir="there", fresh=True)
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_finished_run_repeats_its_summary_instead_of_training(train):
    run = train("ctkd")
    before, summary = trained_files(run), run.summary
    again = train("ctkd")
    assert "run holds this run, finished; nothing is left to train" in again.result.out
    assert f"{summary['last_top1']:.2f} %" in again.result.out
    assert "epoch 1/3" not in again.result.out
    assert trained_files(again) == before
    assert again.summary == summary


def test_moved_data_and_other_workers_are_no_difference(train, teacher_file, tmp_path):
    run = train("ctkd")
    moved = shutil.copy(teacher_file, tmp_path / "moved.pt")
    other = [f"teacher_weights = {str(moved)!r}", "workers = 2", "threads = 1", "device = 'cpu'"]
    again = train("ctkd", *other, "Runtime.checkpoint_steps = 7")
    assert "nothing is left to train" in again.result.out
    assert again.summary == run.summary


def test_the_trace_of_t_may_become_longer_or_shorter_in_mid_run(train, interrupted_at):
    traced = {"longer": 3, "shorter": 1}
    for name, epochs in traced.items():
        with interrupted_at(3):
            often = "Runtime.checkpoint_steps = 1"
            train("ctkd", "Instrument.trace_epochs = 2", often, workdir=name, status=130)
        run = train("ctkd", f"Instrument.trace_epochs = {epochs}", workdir=name)
        lines = (run.path / "temperature.csv").read_text().splitlines()[1:]
        assert len(lines) == 2 * epochs  # two steps an epoch


def test_a_tilde_that_no_shell_has_seen_is_the_home_folder(train, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    train("ctkd", "epochs = 1", workdir="~/run")
    assert (tmp_path / "home" / "run" / "summary.json").exists()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("binding", "line"),
    [
        ("KD.kd_weight = 0.5", "KD.kd_weight = 0.9 there, 0.5 here"),
        ("SGD.weight_decay = 0.25", "SGD.weight_decay = 0.0005 there, 0.25 here"),
        ("seed = 4", "Seed.seed = 0 there, 4 here"),
    ],
)
def test_another_methods_recipes_or_seeds_folder_is_refused(train, binding, line):
    run = train("ctkd", "epochs = 1")
    before = trained_files(run)
    refused = train("ctkd", "epochs = 1", binding, status=2)
    assert f"\n  {line}\n" in refused.result.err
    assert trained_files(refused) == before


def test_fresh_begins_again_and_keeps_the_old(train, folder, tmp_path):
    first = train("ctkd", "epochs = 1")
    before = first.tensors()
    fresh = train("ctkd", "epochs = 1", "seed = 1", flags=["--fresh"])
    assert "run was moved to run.old-1" in fresh.result.out
    assert fresh.settings["seed"]["Seed.seed"] == 1
    old = folder(tmp_path / "run.old-1")
    assert old.settings["seed"]["Seed.seed"] == 0
    assert all(torch.equal(old.tensors()[name], before[name]) for name in before)


@pytest.mark.parametrize("flags", [[], ["--fresh"]])
def test_a_folder_that_another_process_owns_is_refused(train, holding, tmp_path, flags):
    run = train("ctkd", "epochs = 1")
    before = trained_files(run)
    other = holding(tmp_path / "run")
    refused = train("ctkd", "epochs = 1", status=2, flags=flags)
    assert refused.result.err == (
        f"ctkd: run is in use by process {other.pid}: wait for it, or give another --workdir\n"
    )
    assert trained_files(run) == before


def test_fresh_where_there_is_nothing_just_begins(train):
    assert train("vanilla", "epochs = 1", flags=["--fresh"]).summary["finished"]


def test_a_derived_folder_is_the_same_for_the_same_command_and_no_other(job, tmp_path):
    def derived(*arguments):
        made = job(*arguments)
        return str(made.workdir_of(made.build(meta=True)))

    first = derived("ctkd")
    assert first.startswith("runs/digits/digits_teacher_digits_student/ctkd-seed0-")
    assert derived("ctkd") == first
    assert derived("ctkd", "workers = 4", "Instrument.points = 11") == first
    others = {
        derived("ctkd", "seed = 1"),
        derived("ctkd", "KD.kd_weight = 0.5"),
        derived("ctkd", "epochs = 9"),
        derived("kd"),
    }
    assert len(others | {first}) == 5
    old = tmp_path / "runs/digits" / pathlib.Path(first).name  # as version 0.1 named it
    old.mkdir(parents=True)
    (old / "settings.json").touch()
    assert derived("ctkd") == f"runs/digits/{old.name}"
    assert any("-seed1-" in path for path in others)


def test_the_same_command_resumes_the_same_run_without_a_folder_given(command, arguments, tmp_path):
    line = arguments("ctkd", "epochs = 1")
    assert command(*line).status == 0
    again = command(*line)
    assert "nothing is left to train" in again.out
    assert len(list((tmp_path / "runs/digits").glob("*/*"))) == 1


def test_the_saved_configuration_reproduces_the_run_by_itself(
    train, command, same, folder, tmp_path
):
    run = train("ctkd_instance", "SGD.lr = 0.03", "InstanceTemperature.hidden = 32")
    result = command(f"--gin_file={run.path / 'config.gin'}", "--workdir=again")
    assert result.status == 0
    again = folder(tmp_path / "again")
    assert same(again.tensors(), run.tensors())
    assert again.summary["name"] == "ctkd_instance"


@pytest.mark.parametrize("method", ["vanilla", "ctkd"])
def test_evaluating_gives_the_very_numbers_that_training_gave(job, tmp_path, method):
    made = job(method, "digits.validation = 100", workdir="run")
    summary = execute(made, Console())
    last = evaluate(made, None, Console())
    assert last["test_top1"] == summary["last_top1"]
    best = evaluate(made, "run/student_best.pt", Console())
    assert best["test_top1"] == summary["best_top1"]
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for name in ("test_top1", "test_top5", "test_loss", "validation_top1", "validation_loss"):
        assert last[name] == rows[-1][name]


def test_evaluating_prints_percent_and_needs_only_the_work_directory(train, command):
    run = train("ctkd")
    last = run.metrics[-1]
    expected = [
        "images: 128 training, 360 test, in 10 classes",
        "run/student_last.pt:",
        f"test_top1 {last['test_top1']:.2f} %",
        f"test_top5 {last['test_top5']:.2f} %",
        f"test_loss {last['test_loss']:.4g}",
    ]
    result = command("--mode=evaluate", "--workdir=run")
    assert (result.status, result.out.splitlines(), result.err) == (0, expected, "")
    found = command("--mode=evaluate", "--checkpoint=run/student_last.pt")
    assert found.out.splitlines() == expected
    *_, newest = sorted((run.path / "checkpoints").glob("*.pt"))
    within = command("--mode=evaluate", f"--checkpoint=run/checkpoints/{newest.name}")
    assert within.out.splitlines()[2:] == expected[2:]


def test_evaluating_any_file_of_weights_with_a_configuration(train, command, tmp_path):
    run = train("ctkd")
    elsewhere = tmp_path / "elsewhere.pt"
    torch.save({"model": run.tensors("student_best.pt")}, elsewhere)
    result = command(
        "--mode=evaluate", "--gin_file=gin/digits/vanilla.gin", f"--checkpoint={elsewhere}"
    )
    assert f"test_top1 {run.summary['best_top1']:.2f} %" in result.out


def test_evaluating_changes_nothing(train, command):
    run = train("ctkd")
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*")}
    command("--mode=evaluate", "--workdir=run")
    assert {p: p.stat().st_mtime_ns for p in run.path.rglob("*")} == before


def test_a_run_in_progress_can_be_evaluated(train, command):
    run = train("vanilla")
    (run.path / "summary.json").unlink()
    assert command("--mode=evaluate", "--workdir=run").status == 0


def test_a_device_that_is_not_there_is_refused(job):
    with pytest.raises(ConfigError, match="Runtime.device = 'cuda:7' cannot be used: "):
        execute(job("vanilla", "device = 'cuda:7'"), Console())


@pytest.mark.parametrize("name", ["meta", "gpu", "0", "cuda:x"])
def test_a_device_that_there_never_is_is_refused_by_a_dry_run_too(command, name):
    result = command(
        "--gin_file=gin/digits/ctkd.gin", "--dry_run", f"--gin_param=device = {name!r}"
    )
    assert result.status == 2
    assert f"Runtime.device = {name!r}: expected auto, cpu, cuda or cuda:N" in result.err


def test_the_threads_are_set(job, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    execute(job("vanilla", "epochs = 1", "threads = 3"), Console())
    assert asked == [3]
    asked.clear()
    execute(job("vanilla", "epochs = 1", "threads = None", "seed = 1"), Console())
    assert asked == []
