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

FEATURES = "Method.features = [@AT, @CRD, @FitNet, @PKT, @RKD, @ReviewKD, @SP, @SRRL, @VID]"
TRAIN = """
import json, sys
from ctkd.engine.output.console import Console
from ctkd.engine.job import Job, execute
files, params, workdir = json.loads(sys.argv[1])
print(json.dumps(execute(Job(files, params, workdir), Console())), flush=True)
"""


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.fixture
def ranks(tmp_path, environment):
    """Starts `size` processes of one world that run `code`; gives their Popen objects."""
    started = []

    def start(size, code, *arguments):
        variables = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        for rank in range(size):
            own = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            own |= {name: str(value) for name, value in variables.items()}
            process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                cwd=tmp_path,
                env=own,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            started.append(process)
        return started[-size:]

    yield start
    for process in started:
        process.kill()
        process.wait()


def ends(processes, seconds=200):
    """The status and output of each."""
    results = []
    for process in processes:
        out, err = process.communicate(timeout=seconds)
        results.append((process.returncode, out, err))
    return results


@pytest.fixture
def job(teacher_file, tmp_path):
    """What a small run is described by: files, parameters, work directory."""

    def make(method, name, *params):
        small = [
            f"teacher_weights = '{teacher_file}'",
            "digits.train_images = 128",
            "Runtime.tensorboard = False",
            "Instrument.points = 9",
        ]
        return [f"gin/digits/{method}.gin"], [*small, *params], str(tmp_path / name)

    return make


def train_alone(described):
    files, params, workdir = described
    words = [f"--gin_file={file}" for file in files] + [f"--gin_param={p}" for p in params]
    assert main([*words, f"--workdir={workdir}"]) == 0
    return torch.load(f"{workdir}/student_last.pt", weights_only=True)


def metrics(folder):
    path = pathlib.Path(folder) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary_of(out):
    return json.loads(out.strip().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "size", "params"),
    [
        ("ctkd", 2, ("epochs = 3",)),
        # 128 = 2·61 + 6: three processes with parts of unequal size, and a small last batch
        ("ctkd_instance", 3, ("epochs = 2", "batch_size = 61", "Runtime.accumulate = 2")),
        ("vanilla", 2, ("epochs = 2",)),
        # Terms that compare rows: 128 = 61 + 61 + 6, so that the ranks' shares are uneven.
        ("ctkd_instance", 2, ("epochs = 2", "batch_size = 61", "Method.objective = @MLKD")),
        # A small rate: large weights would magnify the rounding of float32.
        ("ctkd", 2, ("epochs = 1", "batch_size = 61", "SGD.lr = 0.001", FEATURES)),
    ],
)
def test_a_run_does_not_depend_on_how_many_processes_share_it(ranks, job, method, size, params):
    shared, alone = job(method, "shared", *params), job(method, "alone", *params)
    if method == "vanilla":  # which has no teacher
        for described in (shared, alone):
            described[1].pop(0)
    results = ends(ranks(size, TRAIN, json.dumps(shared)))
    assert [status for status, _, _ in results] == [0] * size, results
    mine = train_alone(alone)
    theirs = torch.load(f"{shared[2]}/student_last.pt", weights_only=True)
    for name, value in mine.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-5, msg=name)
    summaries = [summary_of(out) for _, out, _ in results]
    for key in ("temperature", "t_star", "last_top1", "best_top1", "teacher_top1"):
        values = {repr(summary.get(key)) for summary in summaries}
        assert len(values) == 1, (key, values)  # the same bits on every rank
    assert all(len(out.strip().splitlines()) == 1 for _, out, _ in results[1:])  # only one speaks
    rows = [metrics(folder) for folder in (shared[2], alone[2])]
    for ours, single in zip(*rows, strict=True):
        for key in ("train_loss", "temperature", "temperature_low", "temperature_high", "gradient"):
            if single.get(key) is None:  # a run without a teacher has no temperature
                assert ours.get(key) is None
            else:
                assert ours[key] == pytest.approx(single[key], rel=1e-4), key
        assert ours["test_top1"] == single["test_top1"]  # every image counted once


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run_whose_state_is_there(ranks, job):
    described = job("ctkd", "run", "epochs = 2000", "Runtime.checkpoint_steps = 2")
    first, second = ranks(2, TRAIN, json.dumps(described))
    end = time.monotonic() + 100
    while not metrics(described[2]):
        assert time.monotonic() < end, ends([first, second], 5)
        time.sleep(0.1)
    second.send_signal(signal.SIGKILL)
    status, _, _ = ends([first], 60)[0]
    assert status not in (0, None)
    assert os.listdir(f"{described[2]}/checkpoints")


@pytest.mark.slow
def test_all_ranks_stop_after_the_same_step_and_go_on_exactly(ranks, job):
    params = ("epochs = 400", "Recipe.eval_every = 400")  # longer than a second: a vote takes place
    described = job("ctkd", "run", *params)
    code = TRAIN.replace("execute(", "run(").replace(
        "files,",
        "from ctkd.errors import Interrupted\n"
        "def run(*a):\n"
        "    try: return execute(*a)\n"
        "    except Interrupted as e: return {'stopped': str(e)}\n"
        "files,",
        1,
    )
    both = ranks(2, code, json.dumps(described))
    end = time.monotonic() + 100
    while len(metrics(described[2])) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    both[1].send_signal(signal.SIGTERM)  # not the one that writes
    stopped = [summary_of(out) for _, out, _ in ends(both)]
    assert stopped[0] == stopped[1]
    assert stopped[0]["stopped"].startswith("interrupted after step")
    again = ends(ranks(2, TRAIN, json.dumps(described)))
    assert [status for status, _, _ in again] == [0, 0], again
    assert "resumed at step" in again[0][1]
    undisturbed = job("ctkd", "undisturbed", *params)
    ends(ranks(2, TRAIN, json.dumps(undisturbed)))
    one, other = (
        torch.load(f"{folder}/student_last.pt", weights_only=True)
        for folder in (described[2], undisturbed[2])
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_a_mistake_is_reported_to_every_rank(ranks, job):
    described = job("ctkd", "run", "epochs = 1")
    folder = pathlib.Path(described[2])
    folder.mkdir()
    (folder / "thesis.tex").touch()
    results = ends(ranks(2, TRAIN, json.dumps(described)), 60)
    assert all(status == 1 for status, _, _ in results)
    assert all("WorkdirError" in err and "thesis.tex" in err for _, _, err in results)


@pytest.mark.slow
def test_a_batch_too_small_for_its_ranks_is_refused(ranks, job):
    described = job("ctkd", "run", "batch_size = 127")
    results = ends(ranks(2, TRAIN, json.dumps(described)), 60)
    assert all(
        "the last batch of an epoch has 1 images for 2 processes" in err for *_, err in results
    )


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


@pytest.mark.slow
def test_a_temperature_per_rank_is_another_temperature_on_each_rank(ranks, job):
    quirk = ("epochs = 2", "Method.temperature_per_rank = True", "CosineLambda.epochs = 1")
    results = ends(ranks(2, TRAIN, json.dumps(job("ctkd", "run", *quirk))))
    assert [status for status, _, _ in results] == [0, 0], results
    one, other = (summary_of(out)["temperature"] for _, out, _ in results)
    assert one != other
    assert one == pytest.approx(other, rel=0.5)  # both still learn
