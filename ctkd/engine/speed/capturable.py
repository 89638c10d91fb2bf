"""What a step that is captured as a CUDA graph cannot have, refused before data are read.

A captured step repeats its kernels on the same memory. So nothing in it may be decided by the host:
neither which kernels run, nor their sizes, nor a number that changes from step to step.
"""

from typing import TYPE_CHECKING, NamedTuple

from ctkd.data.dataset import Dataset
from ctkd.engine.config.settings import Runtime
from ctkd.engine.tasks.augmentation import Augmentation
from ctkd.errors import ConfigError

if TYPE_CHECKING:
    from ctkd.engine.config.build_optimizers import Optimizers

FROM_FILES = ("streamed", "detection", "text")  # kinds of data sets whose batches the host makes


class Obstacle(NamedTuple):
    """A setting that prevents the capture, why, and what to take instead."""

    setting: str
    reason: str
    instead: str


def check_capturable(
    runtime: Runtime,
    optimizers: "Optimizers",
    dataset: Dataset,
    task_part: object,
    needs_strong_view: bool,
) -> None:
    """Raises ConfigError, naming the setting, if `Runtime.cuda_graph` is set and cannot be."""
    if not runtime.cuda_graph:
        return
    policy = task_part.policy if isinstance(task_part, Augmentation) else "none"
    obstacles = {
        Obstacle(
            "the optimizer TorchOptimizer",
            "its learning rate is a number of the host",
            "take @SGD, @AdamW or @Lion",
        ): not all(kind.tensor_rates for kind in (optimizers.student, optimizers.policy)),
        Obstacle(
            "precision = 'float16'",
            "the host decides whether a step overflowed",
            "set precision = 'bfloat16'",
        ): runtime.precision == "float16",
        Obstacle(
            f"a data set of the kind {dataset.kind!r}",
            "the host makes its batches",
            "take images in memory, such as @cifar100",
        ): dataset.kind in FROM_FILES,
        Obstacle(
            "an objective of two views",
            "the host sorts the images of the strong view by operation",
            "take an objective of one view",
        ): needs_strong_view,
        Obstacle(
            f"Augmentation.policy = {policy!r}",
            "the host sorts the images by operation",
            "set it to 'none'",
        ): policy != "none",
    }
    for obstacle, holds in obstacles.items():
        if holds:
            raise ConfigError(
                f"Runtime.cuda_graph = True cannot capture a step with {obstacle.setting}, since "
                f"{obstacle.reason}: {obstacle.instead}, or set Runtime.cuda_graph = False"
            )
