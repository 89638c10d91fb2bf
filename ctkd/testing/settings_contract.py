"""The contract of a constructor: a setting out of range is a ConfigError that names it."""

import inspect
import math
import typing
from collections.abc import Callable, Collection, Iterator
from typing import Any

from ctkd.errors import ConfigError
from ctkd.testing.checker import Checker


def check_settings(
    component: Callable[..., Any],
    signed: Collection[str] = (),
    positive: Collection[str] = (),
    **required: Any,
) -> None:
    """Checks that a class or function refuses settings out of range, one at a time.

    By its annotation, a parameter must refuse: float: NaN, ±inf, and a negative number; int: 0 and
    a negative number; Literal: an unknown choice. Others are not checked.

    Args:
        component: what is registered.
        signed: the float parameters that may be negative.
        positive: the float parameters that must refuse 0 too.
        required: values for the parameters without a default.

    Raises:
        AssertionError: a value is accepted, or the ConfigError does not name the parameter.
    """
    check = Checker(component)
    described = component.__init__ if inspect.isclass(component) else component
    hints = typing.get_type_hints(described)
    for parameter in inspect.signature(component).parameters:
        values = list(_out_of_range(hints.get(parameter), parameter in signed))
        for value in [*values, *([0.0] if parameter in positive else [])]:
            try:
                component(**{**required, parameter: value})
            except ConfigError as error:
                named = f".{parameter} = " in str(error)
                check(named, f"the error for {parameter} = {value!r} does not name it: {error}")
            else:
                check(False, f"{parameter} = {value!r} is accepted: expected a ConfigError")


def _out_of_range(annotation: Any, signed: bool) -> Iterator[Any]:
    if annotation is float:
        yield from (math.nan, math.inf, -math.inf, *(() if signed else (-0.5,)))
    elif annotation is int:
        yield from (0, -1)
    elif typing.get_origin(annotation) is typing.Literal:
        yield "no such choice"
