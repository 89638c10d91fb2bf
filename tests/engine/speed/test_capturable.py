"""What a CUDA graph captures, shown without a GPU: two steps are the same operations and numbers.

A captured step is replayed as it was recorded. So a number of the host that changes from step to
step would keep its first value; here it shows as a difference between two steps.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from ctkd.engine.job import Job
from ctkd.errors import ConfigError

GRAPH = "Runtime.cuda_graph = True"


class Operations(TorchDispatchMode):
    """Keeps each operation with the shapes of its tensors, and its numbers."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace != "profiler":
            self.seen.append((func.name(), str(tree_map(_described, (args, kwargs)))))
        return func(*args, **(kwargs or {}))


def _described(value):
    return tuple(value.shape) if isinstance(value, torch.Tensor) else value


def operations_of_two_steps(trainer):
    """Those of the third and of the fourth step, each as a capture would record it."""
    found = []
    for number, batch in enumerate(trainer.task.batches(1, skip=0)):
        trainer.set_position()
        with Operations() as operations:
            given = trainer.task.batch_of(batch.indices, batch.views)
            trainer.update(given, trainer.teacher)
        trainer.progress.steps += 1
        if number >= 2:
            found.append(operations.seen)
    return found[:2]


FOUR_STEPS = ["digits.train_images = 128", "teacher_cache = None"]


@pytest.mark.parametrize(
    ("method", "bindings"),
    [
        ("dkd_ctkd", ["DKD.warmup_epochs = 3.0", "SGD.warmup_epochs = 3.0"]),
        ("ctkd_instance", ["Runtime.accumulate = 2", "SGD.clip_norm = 1.0"]),
        ("annealed", ["Recipe.optimizer = @AdamW", "Recipe.ema_decay = 0.9"]),
        ("ctkd", ["Recipe.optimizer = @Lion", "Method.transform = @LogitStandardization"]),
        ("kd", ["Method.features = [@CRD]", "CRD.negatives = 16"]),
        ("kd", [f"Augmentation.{k} = 0.5" for k in ("mixup", "cutmix", "erasing", "mixed")]),
    ],
)
def test_two_steps_are_the_same_operations_with_the_same_numbers(trainer, method, bindings):
    made = trainer(method, *FOUR_STEPS, *bindings, GRAPH)
    one, other = operations_of_two_steps(made)
    assert len(one) > 100
    assert one == other


def test_a_number_that_changes_is_found(trainer, monkeypatch):
    """A schedule that the objective would compute by itself, on the host."""
    made = trainer("kd", *FOUR_STEPS)
    objective = made.distiller.objective

    def wrong(*arguments, **more):
        terms = objective(*arguments, **more)
        return {name: term * (1 + made.progress.steps) for name, term in terms.items()}

    wrong.weights = objective.weights
    made.distiller.objective = wrong
    one, other = operations_of_two_steps(made)
    assert one != other


@pytest.mark.parametrize(
    ("file", "bindings", "setting"),
    [
        ("digits/kd", ["Recipe.optimizer = @TorchOptimizer"], "the optimizer TorchOptimizer"),
        ("digits/kd", ["precision = 'float16'"], "precision = 'float16'"),
        ("digits/kd", ["Method.objective = @MLKD"], "an objective of two views"),
        ("digits/kd", ["Augmentation.policy = 'randaugment'"], "Augmentation.policy = "),
        ("imagenet/kd", [], "a data set of the kind 'streamed'"),
        ("coco/kd", [], "a data set of the kind 'detection'"),
    ],
)
def test_what_cannot_be_captured_is_refused_by_name(file, bindings, setting):
    with pytest.raises(ConfigError, match=f"cannot capture a step with {setting}"):
        Job([f"gin/{file}.gin"], [*bindings, GRAPH]).build(meta=True)
