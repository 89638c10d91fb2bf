"""Checks of settings that come from Gin, which checks no types: one wording for all of them."""

import collections.abc
import difflib
import math
import types
import typing
from collections.abc import Iterable
from typing import Any

from ctkd.errors import ConfigError


def expect(condition: bool, owner: str, parameter: str, value: object, expected: str) -> None:
    """Raises ConfigError unless `condition`: the binding, what came, what was expected."""
    if not condition:
        raise ConfigError(f"{owner}.{parameter} = {value!r}: expected {expected}")


def finite(value: float) -> bool:
    """True for an ordinary number, so that range checks refuse NaN, infinity, texts and None."""
    try:
        return math.isfinite(value)
    except TypeError:
        return False


def suggest(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """`"; did you mean A or B?"`, the valid names nearest to `name`, or the empty string.

    Names that begin with it are nearer than those that look like it. `prefix` is printed before
    each name, such as "--" for flags.
    """
    by_lower = {candidate.lower(): candidate for candidate in valid}
    begun = [known for known in by_lower if name and known.startswith(name.lower())]
    near = sorted(begun, key=len)[:3] or difflib.get_close_matches(
        name.lower(), by_lower, n=3, cutoff=0.6
    )
    named = " or ".join(prefix + by_lower[match] for match in near)
    return f"; did you mean {named}?" if near else ""


def check_types(owner: str, target: Any, arguments: dict[str, Any]) -> None:
    """Compares the values bound to `target`'s parameters with their annotations.

    Only what a Gin file can hold is judged (numbers, strings, booleans, None, sequences,
    references to callables); parameters annotated otherwise are left to the constructor.

    Raises:
        ConfigError: a value does not fit.
    """
    hints = type_hints(target)
    for parameter, value in arguments.items():
        if parameter in hints and not fits(value, hints[parameter]):
            expect(False, owner, parameter, value, spell_type(hints[parameter]))


def type_hints(target: Any) -> dict[str, Any]:
    """The annotations of a class's or a function's parameters; empty where they are not resolved.

    An annotation may be a name that only a type checker knows.
    """
    described = getattr(target, "__init__") if isinstance(target, type) else target  # noqa: B009
    try:
        return typing.get_type_hints(described)
    except (NameError, TypeError):
        return {}


def fits(value: Any, annotation: Any) -> bool:
    """Whether `value` is of the type `annotation`; an int is accepted for a float."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is collections.abc.Callable or annotation is collections.abc.Callable:
        return callable(value)
    if origin in (collections.abc.Sequence, tuple, list):
        if not isinstance(value, (list, tuple)):
            return False
        expected = _items(origin, arguments, len(value))
        return len(value) == len(expected) and all(map(fits, value, expected))
    if annotation is None or annotation is type(None):
        return value is None
    if annotation in (int, float):
        kinds = (int,) if annotation is int else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool)
    if annotation in (str, bool):
        return isinstance(value, annotation)
    return True


def _by_position(origin: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether an annotation says what each item is, as tuple[str, int] does."""
    return origin is tuple and bool(arguments) and arguments[-1] is not ...


def _items(origin: Any, arguments: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """What is asked of each of the `count` items of a sequence."""
    if _by_position(origin, arguments):
        return arguments
    return (arguments[0] if arguments else Any,) * count


def spell_type(annotation: Any) -> str:
    """An annotation in a user's words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(spell_type(choice) for choice in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in arguments)
    if origin is collections.abc.Callable or annotation is collections.abc.Callable:
        return "a reference to a component, such as @Name"
    if _by_position(origin, arguments):
        return f"a tuple of {', '.join(map(spell_type, arguments))}"
    if origin in (collections.abc.Sequence, tuple, list):
        return f"a list of {spell_type(arguments[0])}" if arguments else "a list"
    if annotation is type(None):
        return "None"
    words = {
        int: "a whole number",
        float: "a number",
        str: "a text in quotes",
        bool: "True or False",
    }
    return words.get(annotation, str(annotation))
