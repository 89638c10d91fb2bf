"""Axes: names with their alternatives, each a list of Gin files and bindings with a label."""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctkd.checks import suggest
from ctkd.errors import ConfigError


@dataclass(frozen=True)
class Choice:
    """One alternative of an axis.

    Attributes:
        label: its text in tables: a value, or the stem of a Gin file.
        files, params: the Gin files and bindings that it adds to a run's configuration.
    """

    axis: str
    label: str
    files: tuple[str, ...] = ()
    params: tuple[str, ...] = ()


def choices_of(axis: str, values: Any) -> list[Choice]:
    """The alternatives of an axis.

    Raises:
        ConfigError: two alternatives are equal, or a value cannot be written in a Gin file.
    """
    labeled = isinstance(values, Mapping)
    if labeled:
        found = [_alternative(axis, value, str(label)) for label, value in values.items()]
    elif is_binding(axis, values):
        found = [_value(axis, value) for value in values]
    else:
        found = [_alternative(axis, value) for value in values]
    labels = [choice.label for choice in found]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigError(f"the axis {axis!r} has {', '.join(twice)} twice: cells would be equal")
    return found


def is_binding(axis: str, values: Sequence[Any]) -> bool:
    """Whether an axis takes values; otherwise it takes Gin files or lists of files and bindings."""
    return "." in axis or not all(_parts(value) for value in values)


def label_of(value: Any) -> str:
    """The label of a value or an alternative; equal values, 1 and 1.0, have the same label."""
    parts = _parts(value)
    if parts:
        return "+".join(pathlib.Path(p).stem if p.endswith(".gin") else p for p in parts)
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return value if isinstance(value, str) else gin_text("", value)


def gin_text(axis: str, value: Any) -> str:
    """A value in Gin's spelling. Raises ConfigError for a value that Gin cannot spell."""
    if callable(value):
        return f"@{getattr(value, '__name__', value)}"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(gin_text(axis, item) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)"
    if isinstance(value, Mapping):
        items = (f"{gin_text(axis, k)}: {gin_text(axis, v)}" for k, v in value.items())
        return f"{{{', '.join(items)}}}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    raise ConfigError(
        f"the axis {axis!r} has a value {value!r}: expected numbers, texts, True, False, None, "
        "references such as @GlobalTemperature, or lists of these"
    )


def _value(axis: str, value: Any) -> Choice:
    return Choice(axis, label_of(value), params=(f"{axis} = {gin_text(axis, value)}",))


def _alternative(axis: str, value: Any, label: str | None = None) -> Choice:
    parts = _parts(value)
    if not parts:
        raise ConfigError(
            f"the axis {axis!r} has an alternative {value!r}: expected a Gin file, or a list of "
            "Gin files and bindings ('Name.parameter = value')"
        )
    files = tuple(part for part in parts if part.endswith(".gin"))
    params = tuple(part for part in parts if not part.endswith(".gin"))
    return Choice(axis, label_of(value) if label is None else label, files, params)


def _parts(value: Any) -> list[str]:
    """The Gin files and bindings of an alternative; empty if it is not a valid one."""
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        return []
    fine = all(part.endswith(".gin") or "=" in part for part in parts)
    return list(parts) if fine else []


class Conditions:
    """Partial combinations, {axis: value or list of values}, and a test for a cell."""

    def __init__(self, where: str, labels: Mapping[str, set[str]]) -> None:
        """`where` is their setting; `labels` are the sweep's axes with their labels."""
        self._where, self._labels = where, labels

    def read(self, entry: Any) -> dict[str, set[str]]:
        """The labels in an entry, by axis.

        Raises:
            ConfigError: it is not a dictionary, or names an axis or value that the sweep lacks.
        """
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{self._where}: {entry!r}: expected a dictionary {{axis: value}}")
        wanted = {}
        for axis, values in entry.items():
            self.check_axis(axis)
            # A list may be one value or several; the axis's labels decide.
            whole = label_of(values)
            several = isinstance(values, (list, tuple)) and whole not in self._labels[axis]
            labels = {label_of(value) for value in values} if several else {whole}
            unknown = sorted(labels - self._labels[axis])
            if unknown:
                known = ", ".join(sorted(self._labels[axis]))
                raise ConfigError(
                    f"{self._where}: the axis {axis!r} is never {unknown[0]} (it is {known})"
                )
            wanted[axis] = labels
        return wanted

    def check_axis(self, axis: str) -> None:
        """Raises ConfigError if the sweep has no such axis."""
        if axis not in self._labels:
            known = ", ".join(self._labels) or "none"
            hint = suggest(str(axis), self._labels)
            raise ConfigError(f"{self._where}: no axis is named {axis!r}{hint} (axes: {known})")


def holds(wanted: Mapping[str, set[str]], choices: Sequence[Choice]) -> bool:
    """Whether a cell has one of the values on every axis of an entry."""
    labels = {choice.axis: choice.label for choice in choices}
    return all(labels.get(axis) in values for axis, values in wanted.items())
