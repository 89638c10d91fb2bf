"""Several processes that share a run, each a process of its own on this machine, under gloo."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from ctkd.engine.distributed.reduce import sum_over_ranks
from ctkd.engine.distributed.world import World, joined
from ctkd.main import main

ROOT = pathlib.Path(__file__).parents[3]
FEATURES = "Method.features = [@AT, @CRD, @FitNet, @PKT, @RKD, @ReviewKD, @SP, @SRRL, @VID]"
# Runs one after the other in one world: torch takes its seconds to import once. A run that is
# stopped or refused leaves its group open, so it is the last one.
TRAIN = """
import json, os, sys, time
from ctkd.engine.job import Job, execute
from ctkd.engine.output.console import Console
from ctkd.errors import Interrupted
from ctkd.engine.train import Trainer

runs, seconds = json.loads(sys.argv[1])
step = Trainer.train_step
Trainer.train_step = lambda self, batch: (time.sleep(seconds), step(self, batch))[1]
for port, (files, params, workdir) in runs:
    os.environ["MASTER_PORT"] = str(port)
    try:
        print(json.dumps(execute(Job(files, params, workdir), Console())), flush=True)
    except Interrupted as stop:
        print(json.dumps({"stopped": str(stop)}), flush=True)
"""
# Method, parameters. Terms that compare rows: 128 = 61 + 61 + 6, so that the ranks' shares are
# uneven. A small rate for features: large weights would magnify the rounding of float32.
SHARED_BY_2 = {
    "ctkd": ("ctkd", "epochs = 3"),
    "vanilla": ("vanilla", "epochs = 2"),
    "rows": ("ctkd_instance", "epochs = 2", "batch_size = 61", "Method.objective = @MLKD"),
    "features": ("ctkd", "epochs = 1", "batch_size = 61", "SGD.lr = 0.001", FEATURES),
}
# Three processes with parts of unequal size, and a small last batch: 128 = 2·61 + 6.
BY_3 = {
    "uneven": ("ctkd_instance", "epochs = 2", "batch_size = 61", "Runtime.accumulate = 2"),
}
PER_RANK = ("ctkd", "epochs = 2", "Method.temperature_per_rank = True", "CosineLambda.epochs = 1")
grouped = pytest.mark.xdist_group("ranks")  # one process for all: the worlds run once


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


class Ranks:
    """Processes of one world."""

    def __init__(self, size, described, seconds=0.0):
        """Starts `size` processes, which train the runs described, waiting before each step."""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        world = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "PYTHONPATH": path}
        given = json.dumps([[(free_port(), each) for each in described], seconds])
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", TRAIN, given],
                cwd=ROOT,
                env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def ends(self, seconds=300):
        """The status and output of each."""
        results = []
        for process in self.processes:
            out, err = process.communicate(timeout=seconds)
            results.append((process.returncode, out, err))
        return results


def described(folder, teacher, method, *params):
    """A small run: files, parameters, work directory."""
    small = [
        *([] if method == "vanilla" else [f"teacher_weights = '{teacher}'"]),
        "digits.train_images = 128",
        "Runtime.tensorboard = False",
        "Runtime.figures = False",
        "Instrument.points = 9",
    ]
    return [f"gin/digits/{method}.gin"], [*small, *params], str(folder)


@pytest.fixture(scope="module")
def worlds(teacher_file, tmp_path_factory):
    """What the ranks of two worlds of 2 and 3 processes leave: folder, (status, out, err) of each.

    Each world ends with a run that is refused.
    """
    folder = tmp_path_factory.mktemp("worlds")
    taken = folder / "taken"
    taken.mkdir()
    (taken / "thesis.tex").touch()
    last = {2: (taken, "ctkd", "epochs = 1"), 3: (folder / "small", "ctkd", "batch_size = 127")}
    results = {}
    for size, runs in ((2, {**SHARED_BY_2, "per rank": PER_RANK}), (3, BY_3)):
        all_runs = [(folder / name, *run) for name, run in runs.items()]
        jobs = [described(path, teacher_file, *run) for path, *run in (*all_runs, last[size])]
        with Ranks(size, jobs) as ranks:
            results[size] = ranks.ends()
    return folder, results


def summaries(results, runs, name):
    """The last line that each rank prints of a run."""
    lines = [
        [json.loads(x) for x in out.splitlines() if x.startswith("{")] for _, out, _ in results
    ]
    assert all(len(each) == len(runs) for each in lines), results
    return [each[list(runs).index(name)] for each in lines]


def train_alone(run):
    files, params, workdir = run
    words = [f"--gin_file={file}" for file in files] + [f"--gin_param={p}" for p in params]
    assert main([*words, f"--workdir={workdir}"]) == 0
    return torch.load(f"{workdir}/student_last.pt", weights_only=True)


def metrics(folder):
    path = pathlib.Path(folder) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
@grouped
@pytest.mark.parametrize(
    ("size", "name"), [*((2, name) for name in SHARED_BY_2), *((3, name) for name in BY_3)]
)
def test_a_run_does_not_depend_on_how_many_processes_share_it(
    worlds, teacher_file, tmp_path, size, name
):
    folder, results = worlds
    runs = {**SHARED_BY_2, "per rank": PER_RANK} if size == 2 else BY_3
    mine = train_alone(described(tmp_path / "alone", teacher_file, *runs[name]))
    theirs = torch.load(folder / name / "student_last.pt", weights_only=True)
    for key, value in mine.items():
        torch.testing.assert_close(theirs[key], value, rtol=1e-4, atol=1e-5, msg=key)
    ranks = summaries(results[size], runs, name)
    for key in ("temperature", "t_star", "last_top1", "best_top1", "teacher_top1"):
        values = {repr(summary.get(key)) for summary in ranks}
        assert len(values) == 1, (key, values)  # the same bits on every rank
    rows = [metrics(path) for path in (folder / name, tmp_path / "alone")]
    for ours, single in zip(*rows, strict=True):
        for key in ("train_loss", "temperature", "temperature_low", "temperature_high", "gradient"):
            if single.get(key) is None:  # a run without a teacher has no temperature
                assert ours.get(key) is None
            else:
                assert ours[key] == pytest.approx(single[key], rel=1e-4), key
        assert ours["test_top1"] == single["test_top1"]  # every image counted once


@pytest.mark.slow
@grouped
def test_rank_0_alone_prints(worlds):
    for size, results in worlds[1].items():
        runs = len(SHARED_BY_2) + 1 if size == 2 else len(BY_3)
        assert len(results[0][1].splitlines()) > 2 * runs
        assert all(len(out.splitlines()) == runs for _, out, _ in results[1:])  # the summaries


@pytest.mark.slow
@grouped
def test_all_ranks_stop_after_the_same_step_and_go_on_exactly(teacher_file, tmp_path):
    """Then a rank that dies ends the run, whose state is there."""
    params = ("epochs = 60", "Recipe.eval_every = 60")
    run, undisturbed = (
        described(tmp_path / name, teacher_file, "ctkd", *params) for name in ("run", "undisturbed")
    )
    with Ranks(2, [run], seconds=0.05) as both:  # slow enough for a vote to take place
        wait_for(lambda: len(metrics(run[2])) >= 2, both)
        both.processes[1].send_signal(signal.SIGTERM)  # not the one that writes
        stopped = [json.loads(out.splitlines()[-1]) for _, out, _ in both.ends()]
    assert stopped[0] == stopped[1]
    assert stopped[0]["stopped"].startswith("interrupted after step")
    assert len(metrics(run[2])) < 60
    often = ("epochs = 2000", "Runtime.checkpoint_steps = 2")
    endless = described(tmp_path / "endless", teacher_file, "ctkd", *often)
    with Ranks(2, [run, undisturbed, endless]) as again:
        wait_for(lambda: metrics(endless[2]), again)
        again.processes[1].send_signal(signal.SIGKILL)
        status, out, _ = again.ends()[0]
    assert "resumed at step" in out
    one, other = (
        torch.load(f"{folder}/student_last.pt", weights_only=True)
        for folder in (run[2], undisturbed[2])
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert status not in (0, None)
    assert os.listdir(f"{endless[2]}/checkpoints")


def wait_for(condition, ranks):
    end = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < end
        assert all(process.poll() is None for process in ranks.processes), ranks.ends(5)
        time.sleep(0.05)


@pytest.mark.slow
@grouped
def test_a_mistake_is_reported_to_every_rank(worlds):
    results = worlds[1][2]
    assert all(status == 1 for status, _, _ in results)
    assert all("WorkdirError" in err and "thesis.tex" in err for _, _, err in results)


@pytest.mark.slow
@grouped
def test_a_batch_too_small_for_its_ranks_is_refused(worlds):
    results = worlds[1][3]
    assert all(status == 1 for status, _, _ in results)
    assert all(
        "the last batch of an epoch has 1 images for 3 processes" in err for *_, err in results
    )


@pytest.mark.slow
@grouped
def test_a_temperature_per_rank_is_another_temperature_on_each_rank(worlds):
    runs = {**SHARED_BY_2, "per rank": PER_RANK}
    one, other = (s["temperature"] for s in summaries(worlds[1][2], runs, "per rank"))
    assert one != other
    assert one == pytest.approx(other, rel=0.5)  # both still learn


def test_a_world_of_one_process_calls_no_collective(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as world:
        assert (world.rank, world.size, world.is_main) == (0, 1, True)
        assert world.any(True)
        assert not world.any(False)
        assert world.agree(lambda: 7) == 7
        assert world.sum(torch.ones(3)).tolist() == [1, 1, 1]


def test_ranks_share_a_steps_samples_without_rest():
    samples = torch.arange(11)
    shards = [World(rank, 3).shard(samples) for rank in range(3)]
    assert torch.equal(torch.cat(shards).sort().values, samples)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_a_single_rank_sums_nothing():
    outcome = object()
    assert sum_over_ranks(World(), outcome, 3) is outcome
