"""Image files shared by processes: the real command under torchrun, on CPUs."""

import csv
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

# Batch normalizations depend on how a step is cut, so they are frozen: what is left must agree.
NETWORK = """
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d
from ctkd.registry import MODELS

@MODELS.register
def frozen_network(num_classes: int = 3, width: int = 8, normalization: str = "frozen"):
    norm = FrozenBatchNorm2d if normalization == "frozen" else nn.BatchNorm2d
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), norm(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, 2, 1), norm(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))
"""


@pytest.fixture
def network(tmp_path, environment, monkeypatch):
    """A module that a Gin file imports, and the weights of a teacher."""
    (tmp_path / "frozen_networks.py").write_text(NETWORK)
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"
    monkeypatch.syspath_prepend(tmp_path)
    save_teacher(tmp_path / "teacher.pt")


def save_teacher(path, **options):
    """Random weights, its logits large enough for T to matter."""
    import frozen_networks

    torch.manual_seed(5)
    teacher = frozen_networks.frozen_network(3, **options)
    teacher[-1].weight.data.mul_(30)
    torch.save(teacher.state_dict(), path)


@pytest.fixture
def start(tmp_path, environment, image_folders, network, command):
    """Starts the command with so many processes, on 24 images with batches of 7: 7, 7, 7, 3.

    A single one is this process, and finished when the call returns.
    """
    (tmp_path / "more.gin").write_text("import frozen_networks\n")
    started = []

    def begin(method, *bindings, processes=1, workdir="run"):
        given = [
            f"data_dir = {str(image_folders)!r}",
            f"teacher_weights = '{tmp_path}/teacher.pt'",
            *("imagenet.num_classes = 3", "imagenet.size = 16", "imagenet.resize = 18"),
            *("student = @frozen_network", "teacher = @frozen_network", "batch_size = 7"),
            *("epochs = 2", "workers = 0", "SGD.lr_batch_size = 7", "threads = 1"),
            *(
                "Runtime.tensorboard = False",
                "Runtime.figures = False",
                "Instrument.points = 9",
                "CosineLambda.start = 0.5",
            ),
            # T from 3.2 on: at 15 and more T² · KL itself is a small difference of large numbers
            f"{'Instance' if 'instance' in method else 'Global'}Temperature.raw_init = -2.1",
            "SGD.policy_lr_scale = 5.0",
            *bindings,
        ]
        files = (f"gin/imagenet/{method}.gin", "gin/imagenet/sample.gin", "more.gin")
        words = [f"--gin_file={file}" for file in files] + [f"--gin_param={g}" for g in given]
        words.append(f"--workdir={workdir}")
        if processes == 1:
            done = command(*words)
            assert done.status == 0, done.err
            return None
        with socket.socket() as opened:
            opened.bind(("127.0.0.1", 0))
            port = opened.getsockname()[1]
        launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
        launcher += [f"--master_port={port}", "--master_addr=127.0.0.1"]
        process = subprocess.Popen(
            [sys.executable, *launcher, "-m", "ctkd.main", *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that all of its processes can be ended
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def finished(process, seconds=300):
    out, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, out
    return out


def record(folder):
    """Everything that must agree: the epochs' numbers, T step by step, the weights."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = ("train_", "gradient", "policy_gradient", "temperature", "t_star", "test_")
    numbers = {
        f"{row['epoch']} {name}": value
        for row in rows
        for name, value in row.items()
        if name.startswith(kept) and value is not None
    }
    with open(folder / "temperature.csv") as file:
        for row in csv.DictReader(file):
            numbers |= {
                f"step {row['step']} {k}": float(row[k]) for k in ("temperature", "low", "high")
            }
    return numbers, torch.load(folder / "student_last.pt", weights_only=True)


def largest_differences(one, other):
    """Relative for the numbers, absolute for the weights."""
    numbers = max(abs(one[0][k] - v) / max(abs(v), 1e-3) for k, v in other[0].items())
    weights = max((one[1][k] - v).abs().max().item() for k, v in other[1].items())
    return numbers, weights


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dkd_ctkd", "ctkd_instance"])
def test_a_step_is_the_same_however_it_is_cut(start, tmp_path, method):
    """Whole, in two ranks, in two accumulated parts."""
    workers = f"workers = {int(method == 'dkd_ctkd')}"  # of each rank
    finished(start(method, workers, processes=2, workdir="ranks"))
    start(method, workdir="whole")
    start(method, "Runtime.accumulate = 2", workdir="parts")
    whole = record(tmp_path / "whole")
    assert len({v for k, v in whole[0].items() if k.startswith("step")}) > 4  # T moves
    for name in ("ranks", "parts"):
        numbers, weights = largest_differences(record(tmp_path / name), whole)
        print(f"{method}, {name}: numbers {numbers:.1e} relative, weights {weights:.1e}")
        assert numbers < 2e-5
        assert weights < 2e-6


@pytest.mark.slow
def test_statistics_of_each_ranks_own_rows(start, tmp_path):
    """The published custom: the weights still agree, and what is saved is the ranks' mean."""
    shared = (
        "frozen_network.normalization = 'batch'",
        "epochs = 8",
        "Runtime.checkpoint_steps = 3",
    )
    own, all_of_them = (f"Recipe.sync_batch_norm = {value}" for value in (False, True))
    save_teacher(tmp_path / "teacher.pt", normalization="batch")
    start("ctkd", *shared, all_of_them, workdir="alone")
    finished(start("ctkd", *shared, all_of_them, processes=2, workdir="synced"))
    finished(start("ctkd", *shared, own, processes=2, workdir="straight"))
    alone, synced, mine = (record(tmp_path / name) for name in ("alone", "synced", "straight"))
    assert largest_differences(synced, alone)[1] < 1e-4
    assert largest_differences(mine, alone)[1] > 1e-3
    # A rank that dies ends the run, which then goes on: it has the mean on every rank, as the one
    # that was not interrupted had.
    process = start("ctkd", *shared, own, processes=2)
    out = killed(process, tmp_path / "run" / "metrics.jsonl", child=1)
    assert process.returncode != 0
    assert "SIGKILL" in out or "Signal 9" in out
    assert "resumed at step" in finished(start("ctkd", *shared, own, processes=2))
    assert largest_differences(record(tmp_path / "run"), mine) == (0, 0)


def children(pid):
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def killed(process, sign, child):
    """Waits for a file, kills the launcher's child, and gives what the launcher then says."""
    end = time.monotonic() + 120
    while not sign.exists() or not sign.read_text():
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.kill(children(process.pid)[child], signal.SIGKILL)
    out, _ = process.communicate(timeout=120)
    return out


@pytest.mark.slow
def test_a_mistake_ends_every_process_with_its_message(start):
    process = start("dkd_ctkd", "data_dir = '/absent'", processes=2)
    out, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "imagenet: /absent does not exist" in out
