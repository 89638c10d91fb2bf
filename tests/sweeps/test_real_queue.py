"""What a real SLURM does with wrapped sbatch commands, long sweeps, requeues and preemption."""

import os
import shutil
import subprocess
import time

import pytest

from ctkd.sweeps.cancel import cancel

pytestmark = pytest.mark.timeout(300)
KD = "gin/digits/kd.gin"
HELD = {"other": {"additional_parameters": {"hold": True}}}  # waits, and never starts


@pytest.fixture
def held(launch, sweep_file, sent, slurm, tmp_path):
    """Sends a sweep whose jobs are held; gives the Result, and the sweep."""

    def call(seeds):
        path = sweep_file(base=[KD], params=["epochs = 1"], seeds=seeds, resources=HELD)
        return launch("--sweep", path, "--sweep_dir=sweep", "--cluster=slurm"), sent("sweep")

    yield call
    if (tmp_path / "sweep" / "sweep.json").exists():
        cancel(sent("sweep").folder)


@pytest.fixture
def wrap(tmp_path, monkeypatch):
    """Puts a site's wrapper before the real sbatch."""

    def call(words):
        (tmp_path / "bin").mkdir()
        path = tmp_path / "bin" / "sbatch"
        path.write_text(f"#!/bin/sh\n{shutil.which('sbatch')} {words}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")

    return call


@pytest.mark.parametrize("words", ['--parsable "$@"', '"$@" >/dev/null; echo "Good luck!"'])
def test_jobs_of_a_wrapped_sbatch_are_known(held, wrap, words, launch):
    wrap(words)
    result, sweep = held([0, 1])
    assert (result.status, result.err) == (0, "")
    assert set(sweep.states().values()) == {"queued"}
    assert launch("--sweep_dir=sweep", "--cancel").out == "cancelled: kd-seed0, kd-seed1\n"
    assert set(sweep.states().values()) == {"cancelled"}


def test_a_sweep_that_is_too_long_for_one_array_is_split(held):
    result, sweep = held([*range(7)])
    assert "7 runs were sent to SLURM in 2 arrays" in result.out
    numbers = [job.partition("_")[0] for job in sweep.jobs().values()]
    assert len(set(numbers)) == 2
    assert set(sweep.states().values()) == {"queued"}


def test_an_array_that_is_cancelled_by_hand_before_its_start_is_cancelled(held):
    """squeue then shows the array in one line, without its tasks."""
    _, sweep = held([0, 1])
    number = sweep.jobs()["kd-seed0"].partition("_")[0]
    subprocess.run(["scancel", number], check=True, timeout=60)
    sweep.wait(lambda: set(sweep.states().values()) == {"cancelled"}, 30)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["preemption", "requeue"])
def test_a_job_that_is_requeued_is_never_taken_for_lost(
    launch, sweep_file, small, sent, slurm, how
):
    path = sweep_file(base=[KD], params=[*small, "epochs = 4000"], resources={"nodes": 1})
    launch("--sweep", path, "--sweep_dir=sweep", "--cluster=slurm")
    sweep, key = sent("sweep"), "kd-seed0"
    try:
        sweep.wait(lambda: sweep.epochs(key) >= 1)
        urgent = ["sbatch", "--parsable", "-N2", "--exclusive", "-purgent", "-o/dev/null"]
        if how == "preemption":
            words = [*urgent, "--wrap=sleep 8"]
        else:
            words = ["scontrol", "requeue", sweep.jobs()[key]]
        subprocess.run(words, check=True, timeout=60, capture_output=True)
        seen, end = [], time.monotonic() + 120
        while seen[-2:] != ["queued", "running"] and time.monotonic() < end:
            seen += [state for state in sweep.states().values() if seen[-1:] != [state]]
            time.sleep(0.02)
    finally:
        cancel(sweep.folder)
    assert seen[-2:] == ["queued", "running"]
    assert set(seen) == {"queued", "running"}
    assert len(sweep.folder.ledger.read()[key].jobs) == 1
