"""torch.compile for a run's networks, where it pays.

Measured on CPUs in float32, as a share of the eager network's time (channels last): a frozen
teacher, whose weights become constants of the compiled code, takes 0.8 to 0.95; a student in
training gains nothing. On a GPU the number of kernels limits both, and compiling lowers it.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ctkd.data.dataset import ImageDataset
from ctkd.engine.config.run import Run
from ctkd.engine.distributed.world import World
from ctkd.errors import ConfigError
from ctkd.models.extraction import Extractor

WORTH_STEPS = 2000  # a shorter run ends before it has saved the time of compiling


def compile_student(
    run: Run, student: nn.Module, device: torch.device, world: World
) -> Callable[..., Any]:
    """The student for the training loop: compiled for whole batches, or unchanged.

    In a run with feature losses it returns (logits, features).

    Raises:
        ConfigError: `Runtime.compile` is True and compiling is not possible.
    """
    called = student if run.features is None else Extractor(student, run.features.student)
    if not compiles_student(run, device):
        return called
    parts = world.size * run.runtime.accumulate
    if world.size > 1 and run.recipe.batch_size % parts:
        # A rank with a smaller share would run the eager network. Compiled code may sum over the
        # ranks in another order inside batch normalization, and the ranks would wait for each other
        # forever.
        return called
    return WholeBatches(called, -(-run.recipe.batch_size // parts))


def compiles_student(run: Run, device: torch.device) -> bool:
    """Whether the student is compiled. Raises ConfigError as `compile_student` does."""
    return _wanted(run, device, on_cpu=False)


def compiles_teacher(run: Run, device: torch.device) -> bool:
    """Whether the teacher is compiled. Raises ConfigError as `compile_student` does."""
    return _wanted(run, device, on_cpu=True)


def _wanted(run: Run, device: torch.device, on_cpu: bool) -> bool:
    """The value of `Runtime.compile`; "auto" depends on configuration, device and compiler.

    It does not depend on a measurement, so a resumed run computes as before.
    """
    wish = run.runtime.compile
    if not isinstance(run.dataset, ImageDataset):
        if wish is True:
            raise ConfigError(
                "Runtime.compile = True is for inputs of one shape; these samples have several"
            )
        return False
    if wish == "auto":
        cut, epochs = run.recipe.steps_per_epoch, run.recipe.epochs
        long = cut is None or cut * epochs >= WORTH_STEPS
        return long and (on_cpu or device.type == "cuda") and has_compiler(device)
    if wish and not has_compiler(device):
        on_host = "a C++ compiler (g++, or what CXX names)"
        needed = "Triton and a C compiler" if device.type == "cuda" else on_host
        raise ConfigError(f"Runtime.compile = True needs {needed}: install it, or set 'auto'")
    return wish


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile finds its compilers."""
    if device.type == "cuda":
        # Triton builds its driver with a C compiler for every kernel.
        compiler = any(map(shutil.which, (os.environ.get("CC", "gcc"), "clang")))
        return compiler and importlib.util.find_spec("triton") is not None
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def compile_frozen(network: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """The network compiled for inference on batches of one size; its weights become constants."""
    options: dict[str, str | int | bool | Callable[..., object]] = {"freezing": True}
    compiled: Callable[[Tensor], Any] = torch.compile(network, dynamic=False, options=options)
    return compiled


class WholeBatches:
    """A network compiled for batches of one size; other batches use the eager network.

    Compiling again for one short batch per epoch would take longer than it could save.
    """

    def __init__(self, network: Callable[[Tensor], Any], size: int) -> None:
        self._network, self._size = network, size
        self._compiled = torch.compile(network, dynamic=False)

    def __call__(self, inputs: Tensor) -> Any:
        """The network's output for inputs."""
        return (self._compiled if len(inputs) == self._size else self._network)(inputs)
