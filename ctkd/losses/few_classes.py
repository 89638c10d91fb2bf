"""What a loss or a transform loses when the data set has very few classes, as texts for the user.

An objective or a transform may have two members that are not part of its protocol:

- `min_classes`: with fewer classes a run is refused.
- `limits(num_classes, learned)`: warnings, one text each; `learned` says whether T is learned.
"""

from collections.abc import Callable, Iterable
from typing import cast

from ctkd.errors import ConfigError

# The softmax of a single logit is always 1, so that every loss is 0.
SOFTMAX_CLASSES = 2


def min_classes(part: object) -> int:
    """The fewest classes that an objective or a transform can work with; 1 if it does not say."""
    return int(getattr(part, "min_classes", 1))


def check_classes(parts: Iterable[object], classes: int) -> None:
    """Raises ConfigError where there are too few classes for an objective or a transform."""
    for part in parts:
        if classes < (needed := min_classes(part)):
            why = ": with one class every softmax is 1 and every loss is 0" if classes == 1 else ""
            raise ConfigError(
                f"the data set has num_classes = {classes}, {type(part).__name__} needs {needed} "
                f"or more{why}. Add a class to the data"
            )


def limits(part: object, num_classes: int, learned: bool) -> list[str]:
    """The warnings of an objective or a transform; none if it has no method `limits`."""
    method = getattr(part, "limits", None)
    if method is None:
        return []
    return cast("Callable[[int, bool], list[str]]", method)(num_classes, learned)


def temperature_without_maximum(owner: str, num_classes: int, learned: bool) -> list[str]:
    """The warning for a learned T on T² · KL with two classes.

    With the half gaps a = (z_1 − z_2) / 2 of student and teacher, T² · KL is the integral of
    sech²(a / T) (1 − x) (a_s − a_t)² over x from 0 to 1, with a = a_t + x (a_s − a_t). It grows
    with T for every row, so that there is no T*.
    """
    if num_classes != 2 or not learned:
        return []
    return [
        f"{owner} with 2 classes: T² · KL of every row grows with T, so a learned temperature only "
        "rises to its upper bound. Use a fixed temperature: Method.policy = @ConstantTemperature, "
        "Method.schedule = None"
    ]
