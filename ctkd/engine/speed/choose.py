"""The fast forms of a step's parts, chosen by the settings: the same numbers, or nearly, sooner."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ctkd.engine.config.build import Run
from ctkd.engine.distributed.world import World
from ctkd.engine.speed.compile import WholeBatches, compiles_student
from ctkd.engine.speed.cuda_graph import GraphedStep, Step
from ctkd.engine.task import Task, Viewed


def fast_student(
    run: Run, student: nn.Module, device: torch.device, world: World
) -> Callable[[Tensor], Tensor]:
    """The student as the loop calls it: compiled for whole batches, or as it is."""
    if not compiles_student(run, device):
        return student
    parts = world.size * run.runtime.accumulate
    if world.size > 1 and run.recipe.batch_size % parts:
        # A rank with a smaller share would not run what is compiled, and nothing says that two
        # normalisations' sums over ranks have one order in compiled code and the network's own.
        return student
    return WholeBatches(student, -(-run.recipe.batch_size // parts))


def fast_step(
    run: Run,
    step: Step,
    task: Task,
    device: torch.device,
    world: World,
    warn: Callable[[str], None],
) -> Step:
    """The step as the loop calls it: captured as a CUDA graph, or as it is."""
    if not run.runtime.cuda_graph:
        return step
    reasons = {
        "there is no GPU": device.type != "cuda",
        "several processes share the run": world.size > 1,
        "float16 scales the loss": run.runtime.precision == "float16",
        "its batches cannot be made on the device": not isinstance(task, Viewed),
    }
    for reason, holds in reasons.items():
        if holds:
            warn(f"Runtime.cuda_graph has no effect: {reason}")
            return step
    assert isinstance(task, Viewed)
    return GraphedStep(step, task, run.recipe.batch_size, device)
