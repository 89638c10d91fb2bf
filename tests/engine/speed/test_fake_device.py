"""A training step on a GPU that is not there: PyTorch's fake tensors have a device, and no values.

A tensor of the CPU that meets one of the GPU is found on any machine, and so is a step that reads a
value, for which a GPU would have to be waited for. Left out, since they need a GPU: the backward
pass, the optimizer's kernels, autocast, and CRD, whose forward has a backward pass of its own.
"""

import copy
import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ctkd import builtin
from ctkd.engine import ema
from ctkd.engine.distributed.world import World
from ctkd.engine.feature_setup import give_samples
from ctkd.engine.job import Job
from ctkd.engine.optim import Optimizer
from ctkd.engine.output.console import Console
from ctkd.engine.output.workdir import Workdir
from ctkd.engine.prepare import prepare
from ctkd.engine.tasks.images_in_memory import ClassificationTask
from ctkd.engine.tasks.strong_view import augmentation_of
from ctkd.engine.train import Trainer
from ctkd.registry import MODELS

GPU = torch.device("cuda")
COPIES = (torch.ops.aten.copy_, torch.ops.aten._to_copy)
# No temperature, or text in two vocabularies; a second view, which the host sorts by operation.
PLAIN, SECOND_VIEW = {"CrossEntropy", "HardKD", "ALM"}, {"MLKD", "CRLD"}
VIEW = ["StrongView.operations = 0", "StrongView.cutout = 0.0"]
LEARNED = ("GlobalTemperature", "InstanceTemperature")
ELSEWHERE = {"TokenTemperature", "ReplayedTemperature"}  # of text; of a finished run


class Meetings(TorchDispatchMode):
    """Refuses operations on tensors of two devices; PyTorch allows a 0-d tensor of the CPU.

    Eager steps compute the same with it, but a captured step keeps its first value.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors}
        if len(devices) > 1 and func.overloadpacket not in COPIES:
            raise RuntimeError(f"{func} has tensors on {sorted(devices)}")
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a teacher that was not trained."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(MODELS.get("digits_teacher")(num_classes=10).state_dict(), path)
    return path


@pytest.fixture
def step(weights, tmp_path, monkeypatch):
    """Builds a run of the digits on the CPU, moves it to the fake GPU, and trains a step."""

    def deepcopy(network):
        with unset_fake_temporarily():
            return copy.deepcopy(network)

    def backward(optimizer, loss):
        assert loss.requires_grad
        assert loss.device.type == "cuda"
        for parameter in (*optimizer.student, *optimizer.helpers, *optimizer.policy):
            parameter.grad = torch.zeros_like(parameter)

    def move(optimizer):
        norms = optimizer._clip(optimizer.student, 1.0), optimizer._clip(optimizer.policy, None)
        optimizer.average.update()
        return norms

    monkeypatch.setattr(ema, "copy", SimpleNamespace(deepcopy=deepcopy))
    monkeypatch.setattr(Optimizer, "backward", backward)
    monkeypatch.setattr(Optimizer, "step", move)

    def call(method, *bindings, change=lambda run: None):
        small = ["digits.train_images = 16", "batch_size = 16", "device = 'cpu'"]
        small += [f"teacher_weights = {str(weights)!r}", "Instrument.probe_size = 2"]
        run = Job([f"gin/digits/{method}.gin"], [*small, *bindings]).build()
        change(run)
        folder, console = Workdir(tmp_path), Console(quiet=True)
        prepared, splits = prepare(run, folder, console), run.dataset.load()
        with FakeTensorMode(allow_non_fake_inputs=True), Meetings():
            size = (run.recipe.batch_size, run.seed, GPU, World(), None)
            task = ClassificationTask(
                run.dataset,
                splits,
                *size,
                augmentation_of(run.strong_view, run.dataset),
                run.task_part,
            )
            if prepared.teacher is not None:
                _move(prepared.teacher.network)
                _move(prepared.teacher._forward)
            give_samples(run, task)
            trainer = Trainer(replace(prepared, device=GPU, task=task), folder, console)
            trainer.student.train()
            trainer.train_step(next(task.batches(1, 0)))
        assert {trainer.meter.sums.device.type, trainer.trace.values.device.type} == {"cuda"}
        return trainer

    return call


def _move(network):
    """Moves what was not moved yet: teacher and feature extractor share their modules."""
    if not any(isinstance(parameter, FakeTensor) for parameter in network.parameters()):
        network.to(GPU)


@pytest.mark.parametrize("method", ["vanilla", "kd", "dkd_ctkd", "ctkd_instance", "annealed"])
def test_no_tensor_of_the_cpu_meets_one_of_the_gpu(step, method):
    assert "loss" in step(method).meter.names


@pytest.mark.slow
@pytest.mark.parametrize("objective", sorted(builtin.OBJECTIVES.keys() - PLAIN))
def test_in_any_objective(step, objective):
    more = VIEW if objective in SECOND_VIEW else []
    step("kd", f"Method.objective = @{objective}", *more)


FEATURES = [f"Method.features = [@{name}]" for name in builtin.FEATURES if name != "CRD"]
POLICIES = [f"Method.policy = @{name}" for name in builtin.TEMPERATURES.keys() - ELSEWHERE]


@pytest.mark.slow
@pytest.mark.parametrize("pair", list(itertools.zip_longest(sorted(FEATURES), sorted(POLICIES))))
def test_in_any_feature_loss_and_policy(step, pair):
    """The two do not see one another: each run tries one of both."""
    learned = any(name in str(pair) for name in LEARNED)
    step("ctkd" if learned else "kd", *filter(None, pair))


@pytest.mark.slow
@pytest.mark.parametrize(
    "bindings",
    [
        ["Method.objective = @HardKD", "Method.policy = None"],
        ["Recipe.optimizer = @AdamW", "Recipe.ema_decay = 0.9", "Runtime.accumulate = 2"],
        ["Recipe.optimizer = @Lion", "Method.transform = @LogitStandardization"],
        ["Augmentation.erasing = 0.5", "Augmentation.label_smoothing = 0.1"],
    ],
)
def test_with_other_settings(step, bindings):
    step("kd", *bindings)


class OnTheHost(nn.Module):
    """A policy with a fault."""

    learned, bounds = False, None

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def forward(self, student, teacher, progress):
        if self.fault == "a value is read":
            return student.new_full((), 1.0 + teacher.std().item())
        return torch.full((), 4.0) if self.fault == "0-d" else torch.full((len(student), 1), 4.0)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("0-d", RuntimeError, r"tensors on \['cpu', 'cuda'\]"),
        ("of the rows", RuntimeError, r"tensors on \['cpu', 'cuda'\]|Unhandled FakeTensor Device"),
        ("a value is read", DataDependentOutputException, "_local_scalar_dense"),
    ],
)
def test_a_policy_with_a_fault_is_found(step, fault, error, message):
    def change(run):
        run.distiller.policy = OnTheHost(fault)

    with pytest.raises(error, match=message):
        step("kd", change=change)
