"""Sweeps that run on this machine: GPUs, kills, signals, and the same command again.

In most tests a run is a shell script, which takes no time; the last test trains.
"""

import os
import signal
import sys

import pytest
import torch

from ctkd.errors import ConfigError
from ctkd.main import main as train
from ctkd.sweeps import local
from ctkd.sweeps.study import read_study

KD, CTKD = "gin/digits/kd.gin", "gin/digits/ctkd.gin"


@pytest.fixture
def here(launch, sweep_file, sent):
    """Runs a sweep on this machine; returns the Result and the sweep."""

    def call(*flags, **study):
        study = {"base": [KD], "params": ["teacher_weights = 'none.pt'"], **study}
        path = sweep_file(**study)
        result = launch("--sweep", path, "--sweep_dir=sweep", "--cluster=local", *flags)
        return result, sent("sweep")

    return call


def test_the_machine_carries_as_many_as_its_cores_or_gpus_allow(monkeypatch, sweep_file):
    def capacity(**resources):
        study = read_study(str(sweep_file(base=["gin/digits/kd.gin"], resources=resources)))
        return local.capacity(study.resources)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(local, "devices", lambda: [0, 1, 2, 3])
    assert capacity() == 8
    assert capacity(cpus=3) == 2
    assert capacity(cpus=20) == 1
    assert capacity(parallel=2) == 2
    assert capacity(gpus=1) == 4
    assert capacity(gpus=2, parallel=9) == 2


def test_gpus_are_dealt_out_by_number(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert local.devices() == [2, 3]
    for none in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert local.devices() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937")
    with pytest.raises(ConfigError, match="expected numbers such as 0,1"):
        local.devices()


def test_each_run_has_gpus_of_its_own(here, script, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    # mkdir fails, and so does the run, if another run has the same GPU at the same time.
    script('mkdir "$W/../gpu$CUDA_VISIBLE_DEVICES" || exit 9', "sleep 0.1")
    with open(sys.executable, "a") as file:
        file.write('rmdir "$W/../gpu$CUDA_VISIBLE_DEVICES"\necho $CUDA_VISIBLE_DEVICES\nfinish\n')
    result, sweep = here("--gpus=1", seeds=[*range(6)])
    assert result.status == 0, result.out
    used = [path.read_text().strip() for path in sweep.folder.jobs.glob("*.log")]
    assert sorted(set(used)) == ["4", "5", "6"]
    assert len(used) == 6


def test_a_run_of_several_processes_is_started_by_torchrun(here, script):
    script('echo "$@" threads: $OMP_NUM_THREADS', "finish")
    _, sweep = here("--tasks=2", "--cpus=3")
    log = sweep.folder.local_log("kd-seed0").read_text()
    assert log.startswith("-m torch.distributed.run --standalone --nproc_per_node=2 -m ctkd.main ")
    assert log.endswith("threads: 3\n")


def test_a_killed_run_starts_again_as_often_as_allowed(here, script):
    script('echo here >> "$W/starts"', '[ $(wc -l < "$W/starts") = 3 ] && finish', "kill -9 $$")
    result, sweep = here("--retries=1")
    assert (result.status, sweep.states()) == (1, {"kd-seed0": "killed"})
    result, sweep = here("--retries=1")
    assert (result.status, sweep.states()) == (0, {"kd-seed0": "finished"})
    result, _ = here()
    assert "0 runs train on this machine; 1 are finished" in result.out


def test_the_error_of_a_run_is_shown_and_does_not_stop_the_others(here, script, launch):
    script('case $W in *seed1) echo "ctkd: no file\n  x" >&2; exit 2;; esac', "finish")
    result, sweep = here(seeds=[0, 1, 2])
    assert result.status == 1
    assert sweep.states() == {"kd-seed0": "finished", "kd-seed1": "failed", "kd-seed2": "finished"}
    assert sweep.note("kd-seed1")["error"] == "no file\nx"
    shown = launch("--sweep_dir=sweep", "--status").out
    assert f"kd-seed1: failed: no file — {sweep.folder.local_log('kd-seed1')}" in shown
    assert (sweep.path / "report.html").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_runs_and_the_same_command_continues(here, script, sent, when, number):
    before = signal.getsignal(number)
    script(
        '[ -f "$W/saved" ] && finish',
        "trap 'touch $W/saved; exit 130' TERM",
        'touch "$W/started"; while :; do sleep 0.02; done',
    )
    sweep = sent("sweep")
    when((sweep.folder.workdir("kd-seed0") / "started").exists, number)
    result, _ = here("--parallel=1", seeds=[0, 1])
    assert result.status == 130
    assert "1 runs were stopped, and their states are saved; the same command" in result.err
    assert sweep.states() == {"kd-seed0": "stopped", "kd-seed1": "stopped"}
    assert not sweep.folder.workdir("kd-seed1").exists()
    assert signal.getsignal(number) == before
    when((sweep.folder.workdir("kd-seed1") / "started").exists, number)
    assert here("--parallel=1", seeds=[0, 1])[0].status == 130
    assert sweep.states() == {"kd-seed0": "finished", "kd-seed1": "stopped"}


def test_a_second_signal_ends_the_runs_at_once(here, script, sent, when):
    script(
        "trap 'touch $W/asked; trap \"exit 1\" TERM' TERM",
        'touch "$W/started"; while :; do sleep 0.02; done',
    )
    workdir = sent("sweep").folder.workdir("kd-seed0")
    when((workdir / "started").exists, signal.SIGINT)
    when((workdir / "asked").exists, signal.SIGINT)
    result, _ = here()
    assert result.status == 130
    assert "1 runs were stopped, perhaps without saving" in result.err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_stopped_runs_continue_to_the_same_bits_and_share_a_teacher(
    here, sent, when, small, own_cache
):
    params = [
        "teacher_weights = None",
        "Teacher.min_accuracy = None",
        "epochs = 12",
        "steps_per_epoch = 8",
    ]
    study = {"base": [], "grid": {"method": [KD, CTKD]}, "params": [*small, *params]}
    sweep = sent("sweep")
    when(lambda: sweep.epochs("kd-seed0") >= 1, signal.SIGINT)
    result, _ = here("--parallel=2", **study)
    assert result.status == 130, result.out + result.err
    assert sweep.states()["kd-seed0"] == "stopped"
    result, _ = here("--parallel=2", **study)
    assert result.status == 0, result.out + result.err
    logs = [sweep.folder.local_log(key).read_text() for key in ("kd-seed0", "ctkd-seed0")]
    assert "resumed at step" in logs[0]
    assert sum("training the teacher, once" in log for log in logs) == 1
    assert len(list((own_cache / "teachers").glob("*/student_last.pt"))) == 1
    (cell, _) = sweep.folder.read().cells
    workdir = sweep.path / "runs" / "by-hand"
    words = [f"--gin_file={file}" for file in cell.files]
    words += [f"--gin_param={param}" for param in cell.params]
    assert train([*words, f"--workdir={workdir}"]) == 0
    one, other = (
        torch.load(folder / "student_last.pt", weights_only=True)
        for folder in (workdir, sweep.folder.workdir("kd-seed0"))
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
