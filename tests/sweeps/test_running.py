"""Sweeps that are really sent to SLURM, where it is installed.

CTKD_PREEMPTED_SWEEPS is the number of sweeps of four runs that the last test sends; without it the
test sends one sweep of two runs.
"""

import os
import pickle
import random
import signal
import subprocess
import threading
import time

import pytest
import torch

from ctkd.main import main as train
from ctkd.sweeps import slurm
from ctkd.sweeps.cancel import cancel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
KD, CTKD, INSTANCE = (f"gin/digits/{name}.gin" for name in ("kd", "ctkd", "ctkd_instance"))


@pytest.fixture
def send(launch, sweep_file, small, slurm, sent):
    """Sends a sweep; returns the Result and the sweep."""

    def call(*flags, name="study", params=(), **settings):
        path = sweep_file(name=name, params=[*small, *params], **settings)
        folder = f"--sweep_dir=sweep-{name}"
        return launch("--sweep", path, folder, "--cluster=slurm", *flags), sent(f"sweep-{name}")

    return call


@pytest.fixture(autouse=True)
def _nothing_goes_on(tmp_path, sent, monkeypatch):
    """Ends the jobs that a test leaves running. No figures are drawn, which takes seconds."""
    monkeypatch.setattr("ctkd.results.figures.save.save_figures", lambda record, folder: [])
    yield
    for folder in tmp_path.glob("sweep-*"):
        if (folder / "sweep.json").exists():
            cancel(sent(folder.name).folder)


def preempt(sweep, key):
    """As a cluster does it: the signal goes to the job's processes, not to the batch shell."""
    subprocess.run(["scancel", "--signal=USR2", sweep.jobs()[key]], check=True, timeout=60)


def by_hand(sweep, key, tmp_path):
    """The weights of the same run, trained in one go."""
    cell = next(cell for cell in sweep.folder.read().cells if cell.key == key)
    folder = tmp_path / "by-hand" / key
    words = [f"--gin_file={file}" for file in cell.files]
    words += [f"--gin_param={param}" for param in cell.params]
    assert train([*words, f"--workdir={folder}"]) == 0
    return torch.load(folder / "student_last.pt", weights_only=True)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def weights(sweep, key):
    return torch.load(sweep.folder.workdir(key) / "student_last.pt", weights_only=True)


def test_a_sweep_ends_in_its_report_and_is_never_trained_twice(send):
    study = {"grid": {"method": [KD]}, "seeds": [0, 1], "params": ["epochs = 2"]}
    result, sweep = send("--wait", **study)
    assert result.status == 0, result.out + result.err
    assert set(sweep.states().values()) == {"finished"}
    assert "2 runs: 2 finished" in result.out
    rows = (sweep.path / "report.csv").read_text().splitlines()
    assert [row.split(",")[:3] for row in rows[1:]] == [["kd", "finished", "2"]]
    assert (sweep.path / "report.html").stat().st_size > 10_000
    assert len({job.partition("_")[0] for job in sweep.jobs().values()}) == 1  # one array
    jobs, trained = sweep.jobs(), sweep.note("kd-seed0")
    again, _ = send("--wait", **{**study, "seeds": [0]})
    assert again.status == 0
    assert "0 runs were sent" in again.out
    assert "1 that were sent earlier stay as they are" in again.out
    assert (sweep.path / "report.csv").read_text().splitlines() == rows
    assert (sweep.jobs(), sweep.note("kd-seed0")) == (jobs, trained)


def test_a_run_that_is_killed_without_a_word_is_sent_again(send, tmp_path):
    study = {"base": [CTKD], "params": ["epochs = 50"], "resources": {"retries": 1}}
    _, sweep = send(**study)
    key = "ctkd-seed0"
    sweep.wait(lambda: sweep.epochs(key) >= 3)
    process = sweep.process(key)
    os.kill(process, signal.SIGSTOP)  # so that it is not over before the launcher looks at it
    later = threading.Timer(1.0, os.kill, (process, signal.SIGKILL))
    later.start()
    result, _ = send("--wait", **study)
    later.join()
    assert result.status == 0, result.out + result.err
    assert f"sent again: {key}" in result.out
    assert len(sweep.folder.ledger.read()[key].jobs) == 2
    assert same(weights(sweep, key), by_hand(sweep, key, tmp_path))


def test_cancel_ends_this_sweep_and_nothing_else(send, launch):
    flags = ["--parallel=1"]
    _, other = send(name="other", base=[CTKD], params=["epochs = 5000"])
    _, sweep = send(*flags, base=[CTKD], seeds=[0, 1, 2], params=["epochs = 5000"])
    sweep.wait(lambda: sweep.epochs("ctkd-seed0") >= 1 and other.epochs("ctkd-seed0") >= 1)
    assert sweep.states()["ctkd-seed2"] == "queued"
    result = launch("--sweep=study.gin", f"--sweep_dir={sweep.path}", "--cancel")
    assert result.status == 0
    assert result.out == "cancelled: ctkd-seed0, ctkd-seed1, ctkd-seed2\n"
    assert set(sweep.states().values()) == {"cancelled"}
    sweep.wait(lambda: sweep.process("ctkd-seed0") is None, 30)
    assert other.states() == {"ctkd-seed0": "running"}
    assert launch(f"--sweep_dir={sweep.path}", "--cancel").out == "nothing waits or runs on SLURM\n"


def test_two_processes_train_what_one_does_with_the_same_temperature_on_both(send, tmp_path):
    params = ["epochs = 3", "batch_size = 61"]
    both, two = send("--wait", name="two", base=[INSTANCE], params=params, resources={"nodes": 2})
    assert both.status == 0, both.out + both.err
    key = "ctkd_instance-seed0"
    mine, theirs = by_hand(two, key, tmp_path), weights(two, key)
    for name, value in mine.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-5)
    temperatures = []
    for rank in (0, 1):
        path = two.folder.jobs / f"{two.jobs()[key]}_{rank}_result.pkl"
        kind, summary = pickle.loads(path.read_bytes())
        assert kind == "success"
        temperatures.append(summary["temperature"])
    assert temperatures[0] == temperatures[1]  # to the last bit


def test_sbatch_refuses_in_its_own_words_and_nothing_is_sent(send):
    result, sweep = send("--partition=nowhere", base=[KD], params=["epochs = 1"])
    assert result.status == 2
    assert result.err.startswith("ctkd: sbatch refused")
    assert "invalid partition specified: nowhere" in result.err
    assert sweep.jobs() == {}


def test_an_argument_that_submitit_does_not_know_is_refused(send):
    result, sweep = send(base=[KD], params=["epochs = 1"], resources={"other": {"color": "red"}})
    assert result.status == 2
    assert "color" in result.err
    assert sweep.jobs() == {}


def test_a_cluster_that_does_not_answer_is_an_error(send, launch, monkeypatch, tmp_path):
    _, sweep = send(base=[CTKD], params=["epochs = 3000"])
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_CONF", str(tmp_path / "none.conf"))
        patch.setattr(slurm, "PATIENCE", 1)  # seconds
        result = launch(f"--sweep_dir={sweep.path}", "--status")
    assert result.status == 2
    assert result.err.startswith("ctkd: squeue")


@pytest.mark.parametrize("number", range(int(os.environ.get("CTKD_PREEMPTED_SWEEPS", "1"))))
def test_sweeps_end_complete_and_with_the_same_bits_although_every_job_is_preempted(
    send, tmp_path, number
):
    epochs, chance = 40, random.Random(time.time_ns() + number)
    study = {
        "grid": {"method": [KD, INSTANCE]},
        "seeds": [0, 1] if "CTKD_PREEMPTED_SWEEPS" in os.environ else [0],
        "params": [f"epochs = {epochs}"],
        "resources": {"retries": 0},
    }
    _, sweep = send(**study)
    # From the first epoch on: before it a job has no state to resume from, and begins again.
    moments = {key: chance.randrange(1, epochs // 2) for key in sweep.jobs()}
    print("preempted in epoch", moments)
    left = dict(moments)

    def preempt_those_due():
        for key, moment in list(left.items()):
            if sweep.epochs(key) >= moment and sweep.note(key).get("state") == "running":
                time.sleep(chance.random() * 0.05)
                preempt(sweep, key)
                del left[key]
        return not left

    sweep.wait(preempt_those_due, 400)
    result, _ = send("--wait", **study)
    assert result.status == 0, result.out + result.err
    assert "0 runs were sent" in result.out  # they are still the same jobs
    assert set(sweep.states().values()) == {"finished"}
    for key in moments:
        assert sweep.epochs(key) == epochs
        assert len(sweep.folder.ledger.read()[key].jobs) == 1
        assert "this job is preempted" in sweep.log(key)
        assert "resumed at step" in sweep.log(key, "out")
    if number == 0:
        for key in moments:
            assert same(weights(sweep, key), by_hand(sweep, key, tmp_path)), key
