"""Which runs may be compared: one recipe for each pair of networks, one run for each seed.

Runs of one teacher and student form a group. Runs without a teacher belong to every group of
their student. Within a group recipes must be equal; methods are told apart by their names and,
where runs of one name differ in the method's settings (a sweep), by these settings too.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ctkd.errors import ConfigError
from ctkd.results.read.runs import FINGERPRINTS, RunRecord

ABSENT = object()


@dataclass(frozen=True)
class Group:
    """Finished runs of one teacher (None: without one) and student, by method and seed."""

    teacher: str | None
    student: str
    methods: dict[str, dict[int, RunRecord]]

    @property
    def pair(self) -> str:
        """The pair as a table spells it."""
        return f"{self.teacher} → {self.student}" if self.teacher else f"{self.student} alone"


def group_runs(records: Sequence[RunRecord]) -> list[Group]:
    """The groups, sorted by pair, their methods by name.

    Raises:
        ConfigError: recipes differ within a group, or two runs share pair, method and seed.
    """
    pairs: dict[tuple[str | None, str], list[RunRecord]] = {}
    for record in records:
        pairs.setdefault((record.teacher, record.student), []).append(record)
    taught = {student for teacher, student in pairs if teacher is not None}
    groups = []
    for (teacher, student), runs in sorted(pairs.items(), key=_by_student):
        if teacher is None and student in taught:
            continue  # they stand beside the taught ones
        members = runs if teacher is None else runs + pairs.get((None, student), [])
        group = Group(teacher, student, {})
        _check_recipes(group.pair, members)
        for label, record in _labelled(members):
            _add(group, label, record)
        groups.append(group)
    return groups


def _by_student(item: tuple[tuple[str | None, str], object]) -> tuple[str, str]:
    teacher, student = item[0]
    return student, teacher or ""


def _check_recipes(pair: str, runs: Sequence[RunRecord]) -> None:
    """Refuses runs whose recipes differ, naming each setting with its values and their runs."""
    lines = []
    for setting in sorted({key for run in runs for key in run.settings["recipe"]}):
        seen: dict[str, RunRecord] = {}
        for run in runs:
            value = run.settings["recipe"].get(setting, ABSENT)
            if not _is_open(setting, value, run):
                seen.setdefault(_text(value), run)
        if len(seen) > 1:
            values = ", ".join(f"{value} in {run.path}" for value, run in seen.items())
            lines.append(f"  {setting}: {values}")
    if lines:
        raise ConfigError(
            f"the runs of {pair} follow different recipes, so their accuracies do not compare:\n"
            + "\n".join(lines)
            + "\ncompare the runs of one recipe at a time"
        )


def _is_open(setting: str, value: object, run: RunRecord) -> bool:
    """Whether the run leaves a setting open: a teacher's if it has none, what it did not note."""
    if run.teacher is None and "teacher" in setting.lower():
        return True
    return setting in FINGERPRINTS and value is ABSENT


def _labelled(runs: Sequence[RunRecord]) -> Iterable[tuple[str, RunRecord]]:
    """Each run with its method's label: its name, and what tells it from others of that name.

    A component's settings tell apart the runs that have it; that a run has another one is told by
    the setting which names it (Method.policy, say).
    """
    by_name: dict[str, list[RunRecord]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    for name, namesakes in sorted(by_name.items()):
        methods = [run.settings["method"] for run in namesakes]
        values: dict[str, set[str]] = {}
        for key in {key for method in methods for key in method}:
            having = [method for method in methods if _component(key) in map(_component, method)]
            values[key] = {_text(method.get(key, ABSENT)) for method in having}
        differing = sorted(key for key, found in values.items() if len(found) > 1)
        for run, method in zip(namesakes, methods, strict=True):
            owners = set(map(_component, method))
            told = ", ".join(
                f"{key} = {_text(method.get(key, ABSENT))}"
                for key in differing
                if _component(key) in owners
            )
            yield (f"{name} ({told})" if told else name), run


def _component(setting: str) -> str:
    """The component that a setting belongs to."""
    return setting.partition(".")[0]


def _add(group: Group, label: str, record: RunRecord) -> None:
    """Puts a run into its place, which must be empty."""
    if record.seed is None:
        raise ConfigError(f"{record.path}: its settings name no seed, so it cannot be paired")
    taken = group.methods.setdefault(label, {}).setdefault(record.seed, record)
    if taken is not record:
        raise ConfigError(
            f"two runs of {label}, {group.pair}, have seed {record.seed}: {taken.path} and "
            f"{record.path}; leave one of them out"
        )


def _text(value: Any) -> str:
    """A setting's value as JSON, 1 and 1.0 being the same."""
    if value is ABSENT:
        return "(absent)"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
