"""Runs chosen by their settings: `epochs=10`, `student=resnet20`, `CosineLambda.end=1`."""

from collections.abc import Sequence

from ctkd.checks import suggest
from ctkd.errors import ConfigError
from ctkd.results.read.runs import RunRecord
from ctkd.results.read.schema import IDENTITY

LISTED = 6  # values that a message lists
OWN = ("method", "student", "teacher", "dataset", "seed")  # fields of a run, next to its settings


def select(records: Sequence[RunRecord], conditions: Sequence[str]) -> list[RunRecord]:
    """The runs that meet all conditions of the form NAME=VALUE.

    NAME is one of `OWN`, a setting (Recipe.epochs), or the last part of a setting (epochs).

    Raises:
        ConfigError: a condition has another form, a name is unknown or has several meanings, or no
            run has the value.
    """
    found = list(records)
    for condition in conditions:
        name, equals, wanted = condition.partition("=")
        name, wanted = name.strip(), wanted.strip()
        if not name or not equals or not wanted:
            raise ConfigError(f"--where {condition!r}: expected NAME=VALUE, such as epochs=10")
        key = _key(name, records, condition)
        values = [_text(_value(run, key)) for run in found]
        chosen = [run for run, text in zip(found, values, strict=True) if text == _text(wanted)]
        if not chosen:
            known = list(dict.fromkeys(values))
            listed = ", ".join(known[:LISTED]) + (", …" if len(known) > LISTED else "")
            raise ConfigError(f"--where {condition!r}: no run has this value; {name} is {listed}")
        found = chosen
    return found


def _key(name: str, records: Sequence[RunRecord], condition: str) -> str:
    """The field or the setting that a name means."""
    settings = dict.fromkeys(
        key for run in records for kind in IDENTITY for key in getattr(run.settings, kind)
    )
    if name in OWN or name in settings:
        return name
    if f"Recipe.{name}" in settings:  # epochs are the run's, not those of a schedule
        return f"Recipe.{name}"
    ends = [str(key) for key in settings if key.rpartition(".")[2] == name]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ConfigError(f"--where {condition!r}: give one of {', '.join(ends)}")
    names = [*OWN, *settings, *(key.rpartition(".")[2] for key in settings)]
    raise ConfigError(
        f"--where {condition!r}: no setting is named {name!r}{suggest(name, names) or '.'} The "
        "names are those in config.gin of a run"
    )


def _value(run: RunRecord, key: str) -> object:
    if key == "method":
        return run.name
    if key in OWN:
        return getattr(run, key)
    found = (getattr(run.settings, kind) for kind in IDENTITY)
    return next((values[key] for values in found if key in values), "(absent)")


def _text(value: object) -> str:
    """A value as a user may write it: @resnet20 as resnet20, 10.0 as 10, True as true."""
    text: str = str(value).strip("@()'\"")
    try:
        return f"{float(text):g}"
    except ValueError:
        return text.lower()
