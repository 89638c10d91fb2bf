"""Whole runs on a GPU: they equal the CPU's, resume, share teacher rows, and take turns.

`tools/gpu_check.py` runs them. Without a GPU it runs them on the CPU, as a rehearsal.
"""

import pytest
import torch

from ctkd.engine.interrupt import request_stop
from ctkd.engine.train import Trainer

pytestmark = pytest.mark.gpu
ONLY = pytest.mark.gpu(only=True)  # what a CPU cannot do, or not in time
METHODS = ("kd", "ctkd", "ctkd_instance", "dkd_ctkd")
NAME = "cuda:0" if torch.cuda.is_available() else "cpu"
DEVICE = f"device = {NAME!r}"
GRAPH = "Runtime.cuda_graph = True"


@pytest.mark.parametrize("method", METHODS)
def test_a_run_has_the_losses_of_the_cpu(train, method):
    """The first epoch's: later ones drift apart by float32 rounding."""
    losses = []
    for number, device in enumerate(("cpu", NAME)):
        run = train(method, f"device = {device!r}", workdir=f"run{number}")
        losses.append(run.column("train_loss")[0])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize(
    "precision", ["bfloat16", pytest.param("float16", marks=pytest.mark.gpu(only=True))]
)
def test_a_run_in_half_precision_learns(train, precision):
    run = train("ctkd", DEVICE, f"precision = {precision!r}", "epochs = 6")
    assert run.column("train_ce")[-1] < run.column("train_ce")[0]


@ONLY
@pytest.mark.parametrize("setting", [GRAPH, "compile = True"])
def test_captured_and_compiled_runs_equal_eager_ones(train, setting):
    eager = train("ctkd", DEVICE, workdir="eager")
    fast = train("ctkd", DEVICE, setting, workdir="fast")
    assert fast.column("train_loss")[0] == pytest.approx(eager.column("train_loss")[0], rel=1e-3)


def test_rows_from_the_cache_change_no_bit(train, same):
    cached = [train("ctkd", DEVICE, "teacher_cache = 'rows'", workdir=str(k)) for k in range(2)]
    without = train("ctkd", DEVICE, "teacher_cache = None", workdir="without")
    assert all(same(run.tensors(), without.tensors()) for run in cached)


@pytest.mark.parametrize("more", [(), (GRAPH,)])
def test_a_stopped_group_ends_with_the_bits_of_runs_alone(train, folder, same, monkeypatch, more):
    alone = [train("ctkd", DEVICE, *more, f"seed = {s}", workdir=f"alone{s}") for s in (0, 1)]
    real = Trainer.train_step

    def train_step(self, batch):
        real(self, batch)
        if self.progress.steps == 3:
            request_stop()

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", train_step)
        train("ctkd", DEVICE, *more, workdir="group", flags=["--seeds=0,1"], status=130)
    group = train("ctkd", DEVICE, *more, workdir="group", flags=["--seeds=0,1"])
    for seed, run in enumerate(alone):
        assert same(folder(group.path / f"seed{seed}").tensors(), run.tensors())
