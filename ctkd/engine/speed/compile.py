"""What torch.compile makes of a run's networks, where that pays.

Measured on CPUs with float32 (ratios to the eager network, channels last): a frozen teacher, its
weights constants of the compiled code, takes 0.8 to 0.95 of the time; a student in training gains
nothing. On a GPU both are bound by the number of kernels, which compiling lowers.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ctkd.data.dataset import ImageDataset
from ctkd.engine.config.build import Run
from ctkd.errors import ConfigError

WORTH_STEPS = 2000  # a run cut shorter than that is over before compiling has paid


def compiles_student(run: Run, device: torch.device) -> bool:
    """Whether the student is compiled. Raises ConfigError where that is asked for in vain."""
    return _wanted(run, device, on_cpu=False)


def compiles_teacher(run: Run, device: torch.device) -> bool:
    """Whether the teacher is compiled. Raises ConfigError where that is asked for in vain."""
    return _wanted(run, device, on_cpu=True)


def _wanted(run: Run, device: torch.device, on_cpu: bool) -> bool:
    """What `Runtime.compile` says; "auto" looks at the configuration, the device, the compiler.

    Nothing of it is measured, so a resumed run computes as before.
    """
    wish = run.runtime.compile
    if not isinstance(run.dataset, ImageDataset):
        if wish is True:
            raise ConfigError(
                "Runtime.compile = True is for inputs of one shape; these samples differ in theirs"
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
    """Whether torch.compile finds what it builds with."""
    if device.type == "cuda":
        # Triton builds its driver with a C compiler, whatever it is asked for.
        compiler = any(map(shutil.which, (os.environ.get("CC", "gcc"), "clang")))
        return compiler and importlib.util.find_spec("triton") is not None
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def compile_frozen(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network compiled for inference on batches of one size; its weights become constants."""
    options: dict[str, str | int | bool | Callable[..., object]] = {"freezing": True}
    compiled: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False, options=options)
    return compiled


class WholeBatches:
    """A network compiled for batches of one size; it takes others, such as an epoch's last, itself.

    Compiling again for one short batch an epoch would take longer than it could save.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        self._network, self._size = network, size
        self._compiled = torch.compile(network, dynamic=False)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits of inputs."""
        whole = len(inputs) == self._size
        logits: Tensor = (self._compiled if whole else self._network)(inputs)
        return logits
