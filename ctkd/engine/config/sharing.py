"""What runs of one process must have in common: the settings of data set and teacher.

Student, method, optimizer, learning rates, epochs and seed are a run's own. A setting that is not
known to be a run's own must be equal: a group that is refused costs less than a wrong row.
"""

import hashlib
import json
from typing import TYPE_CHECKING, Any

from ctkd.registry import LR_SCHEDULES, OPTIMIZERS

if TYPE_CHECKING:
    from ctkd.engine.config.run import Run

OWN = {
    "Recipe.student",
    "Recipe.optimizer",
    "Recipe.policy_optimizer",
    "Recipe.lr_schedule",
    "Recipe.epochs",
    "Recipe.recipe_epochs",
    "Recipe.eval_every",
    "Recipe.ema_decay",
    "Runtime.name",
}


def shared_settings(run: "Run") -> dict[str, Any]:
    """The settings that must be equal in all runs of a process, by name."""
    recipe = run.settings["recipe"]
    own = {"Instrument", *OPTIMIZERS, *LR_SCHEDULES, str(recipe["Recipe.student"])[1:]}
    own -= {str(recipe["Teacher.network"])[1:]}  # where both are the same network
    return {
        name: value
        for name, value in {**recipe, **run.settings["runtime"]}.items()
        if name not in OWN and name.partition(".")[0] not in own
    }


def sharing_key(run: "Run") -> str:
    """A hash of the shared settings: runs with equal keys may share a process."""
    text = json.dumps(shared_settings(run), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def teacher_features(run: "Run") -> dict[str, str] | None:
    """The features of the teacher that a run uses: they decide what a row of its cache holds."""
    return None if run.features is None else run.features.teacher
