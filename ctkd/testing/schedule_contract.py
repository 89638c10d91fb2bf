"""The contract of a schedule of λ."""

import math

from ctkd.distiller import Schedule
from ctkd.testing.checker import Checker
from ctkd.testing.objective_contract import POSITIONS


def check_schedule(schedule: Schedule) -> None:
    """Checks a schedule, `schedule(position) -> lambda_`: finite numbers >= 0, always the same.

    Raises:
        AssertionError: the schedule breaks the contract.
    """
    check = Checker(schedule)
    values = [schedule(position) for position in POSITIONS]
    for position, value in zip(POSITIONS, values, strict=True):
        valid = isinstance(value, (int, float)) and math.isfinite(value) and value >= 0
        check(valid, f"λ = {value} at position {position}: expected a finite number >= 0")
    again = [schedule(position) for position in reversed(POSITIONS)]
    check(again[::-1] == values, "λ depends on earlier calls: a run that resumes repeats none")
