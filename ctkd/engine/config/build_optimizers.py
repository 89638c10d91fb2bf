"""The optimizers of student and policy, and the schedule of their learning rates."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ctkd.engine.config.builder import Builder
from ctkd.engine.config.settings import Recipe, spell
from ctkd.engine.lr_schedules import LRSchedule
from ctkd.engine.optimizer_recipes import OptimizerRecipe
from ctkd.errors import ConfigError
from ctkd.registry import LR_SCHEDULES, OPTIMIZERS

SCHEDULE_OF_SGD = re.compile(r"\s*SGD\.(milestones|gamma|warmup_epochs)\s*=")


class Optimizers(NamedTuple):
    """What moves student and policy.

    Attributes:
        student, policy: the same object where both are of the same kind.
        schedule: the factor of both learning rates.
    """

    student: OptimizerRecipe
    policy: OptimizerRecipe
    schedule: LRSchedule

    def lr(self, position: float) -> float:
        """The student's learning rate at a position in the recipe."""
        return self.student.lr * self.schedule(position)


def optimizers_of(call: Builder, recipe: Recipe, bindings: Sequence[str]) -> Optimizers:
    """Builds them, each component once.

    Raises:
        ConfigError: a setting is wrong, or a command line binds a schedule that is not used.
    """
    sgd = OPTIMIZERS.component("SGD").bound
    kinds = (recipe.optimizer or sgd, recipe.policy_optimizer or sgd)
    student = call.component(OPTIMIZERS, "Recipe.optimizer", kinds[0])
    student = policy = student.for_batches_of(recipe.batch_size)
    if kinds[0] is not kinds[1]:
        policy = call.component(OPTIMIZERS, "Recipe.policy_optimizer", kinds[1])
        policy = policy.for_batches_of(recipe.batch_size)
    epochs = recipe.recipe_epochs or recipe.epochs
    schedule: LRSchedule | None = None
    if recipe.lr_schedule is None:
        schedule = student.own_schedule(epochs)
    if schedule is None:
        chosen = recipe.lr_schedule or LR_SCHEDULES.component("CosineLR").bound
        for binding in bindings:
            if SCHEDULE_OF_SGD.match(binding):
                name = spell(chosen)
                raise ConfigError(
                    f"{binding!r} changes nothing: the learning rate follows {name}. Bind the "
                    f"parameters of {name.removeprefix('@')}, or set lr_schedule = None with SGD"
                )
        schedule = call.component(LR_SCHEDULES, "Recipe.lr_schedule", chosen, recipe_epochs=epochs)
    return Optimizers(student, policy, schedule)
