"""Checks that policy, transform and objective of a game fit together, in any training loop.

A part says by optional attributes what it needs; see `Objective`, and `docs/extending.md`.
"""

import math
from collections.abc import Iterable
from typing import Any

from torch import nn

from ctkd.checks import expect
from ctkd.errors import ConfigError
from ctkd.losses.columns import SortedColumns
from ctkd.losses.uld import ULD


def check_policy_and_schedule(
    policy: object, schedule: object, objective: Any, transform: object, cooperative: bool
) -> None:
    """Raises ConfigError for a policy, schedule or transform that is missing or has no effect."""
    for part in (policy, schedule, objective, transform):
        if isinstance(part, type):
            raise ConfigError(f"{part.__name__} is a class: pass an instance, {part.__name__}(…)")
    if policy is not None and not isinstance(policy, nn.Module):
        raise ConfigError(f"policy = {policy!r}: expected a module, such as ConstantTemperature(4)")
    if schedule is not None and not callable(schedule):
        raise ConfigError(f"schedule = {schedule!r}: expected one, such as ConstantLambda(1.0)")
    if not hasattr(objective, "needs_teacher"):
        raise ConfigError(f"objective = {objective!r}: expected one, such as KD()")
    learned = getattr(policy, "learned", False)
    uses_temperature = objective.needs_teacher and getattr(objective, "uses_temperature", True)
    if uses_temperature and policy is None:
        name = type(objective).__name__
        raise ConfigError(f"the objective {name} compares logits: it needs a temperature policy")
    if not uses_temperature and (policy is not None or transform is not None):
        name, part = type(objective).__name__, "temperature" if policy else "transform"
        lacked = "softened logits" if objective.needs_teacher else "teacher"
        raise ConfigError(f"{name} uses no {lacked} and so no {part}")
    if learned and schedule is None:
        raise ConfigError(
            "a learned temperature needs a schedule of λ, such as CosineLambda: set "
            "Method.schedule = @CosineLambda"
        )
    if (schedule is not None or cooperative) and not learned:
        what = "cooperative = True" if schedule is None else "a schedule of λ"
        have = "there is none" if policy is None else f"{type(policy).__name__} is not learned"
        raise ConfigError(
            f"{what} works on a learned temperature only, and {have}: set Method.schedule = "
            "None, or a learned one, Method.policy = @GlobalTemperature"
        )


def check_fitting(policy: object, objective: object, transform: object) -> None:
    """Raises ConfigError where the parts of a game would train on wrong values together."""
    owner, name = type(policy).__name__, type(objective).__name__
    if getattr(policy, "two_temperatures", False) and not getattr(
        objective, "two_temperatures", False
    ):
        raise ConfigError(
            f"{owner} returns two temperatures, the student's and the teacher's, and {name} "
            "accepts one: use an objective such as KD or NormKD, or a policy with one temperature"
        )
    fitting = getattr(policy, "objectives", (name,))
    if name not in fitting:
        raise ConfigError(
            f"{owner} computes T from the loss of {', '.join(fitting)}, and the objective is "
            f"{name}: choose another Method.policy"
        )
    if getattr(objective, "in_chunks", False) and transform is not None:
        raise ConfigError(f"{name} compares chunks of text: set Method.transform = None")
    check_columns(policy, objective, transform)
    if isinstance(transform, SortedColumns) and transform.padded:
        _check_padded(policy, objective)


def check_columns(
    policy: object, objective: object, transform: object, moved: bool | None = None
) -> None:
    """Raises ConfigError where the target's column is read after the transform has moved it.

    `moved` says whether the transform will move columns; None asks the transform. One that depends
    on tokens knows it after `fit`.
    """
    if not (getattr(transform, "moves_columns", False) if moved is None else moved):
        return
    for part, flag in ((objective, "needs_class"), (policy, "needs_targets")):
        if getattr(part, flag, False):
            raise ConfigError(
                f"{type(part).__name__} reads the column of the target, and "
                f"{type(transform).__name__} gives columns other numbers: set one that compares "
                "whole rows, such as @KD"
            )


def _check_padded(policy: object, objective: object) -> None:
    """Raises ConfigError for columns of the probability 0 where the loss has no maximum in T."""
    if not isinstance(objective, ULD):
        raise ConfigError(
            f"SortedColumns.padded = True with {type(objective).__name__}: the added columns have "
            "the probability 0, where its loss is infinite. Set SortedColumns.padded = False, or "
            "the objective to @ULD"
        )
    if getattr(policy, "learned", False):
        raise ConfigError(
            "SortedColumns.padded = True with a learned temperature: the loss grows with T without "
            "limit where the vocabularies have different sizes. Set SortedColumns.padded = False"
        )


def needs_whole_step(part: object) -> bool:
    """Whether an objective, a policy or a feature loss needs all rows of a step at once."""
    flags = ("whole_step", "needs_whole_step", "compares_rows")
    return any(getattr(part, flag, False) for flag in flags)


def check_all_rows(parts: Iterable[object], rows: int, total: int) -> None:
    """Raises ConfigError where a part needs all `total` rows of a step at once and gets `rows`."""
    for part in parts:
        if rows != total and needs_whole_step(part):
            raise ConfigError(
                f"{type(part).__name__} needs all rows of a step at once, and got {rows} of "
                f"total_rows = {total}: compute the step in one part, on one process"
            )


def check_position(position: float, progress: float) -> None:
    """Raises ConfigError where the epochs or the share of a run are out of range."""
    fine = 0 <= position < math.inf
    expect(fine, "Distiller", "position", position, "the recipe's epochs done, 0 or more")
    expect(0 <= progress <= 1, "Distiller", "progress", progress, "a share of the run, 0 to 1")
