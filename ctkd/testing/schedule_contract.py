"""The contract of a schedule, of λ or of the learning rate."""

import math

from ctkd.distiller import Schedule
from ctkd.testing.checker import Checker
from ctkd.testing.objective_contract import POSITIONS


def check_schedule(schedule: Schedule) -> None:
    """Checks a schedule, `schedule(position) -> value`: finite numbers >= 0, always the same.

    The value is λ, or the factor of the learning rate.

    Raises:
        AssertionError: the schedule breaks the contract.
    """
    check = Checker(schedule)
    values = [schedule(position) for position in POSITIONS]
    for position, value in zip(POSITIONS, values, strict=True):
        valid = isinstance(value, (int, float)) and math.isfinite(value) and value >= 0
        check(valid, f"{value} at position {position}: expected a finite number >= 0")
    again = [schedule(position) for position in reversed(POSITIONS)]
    check(
        again[::-1] == values,
        "a value depends on earlier calls, which a resumed run does not repeat",
    )
