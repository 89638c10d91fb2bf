"""Checks that policy, transform and objective of a game fit together, in any training loop.

A part says by optional attributes what it needs; see `Objective`, and `docs/extending.md`.
"""

from collections.abc import Iterable

from ctkd.errors import ConfigError
from ctkd.losses.columns import SortedColumns
from ctkd.losses.uld import ULD


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
