"""Groups of runs that can be compared: one recipe per pair of networks, one run per seed.

Runs of one teacher and student form a group. Runs without a teacher belong to every group of
their student. Within a group all recipes must be equal. A method is identified by its name and, if
runs of one name differ in the method's settings (a sweep), also by these settings.
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
        """The name of the pair in tables."""
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
    for (teacher, student), runs in sorted(
        pairs.items(), key=lambda item: (item[0][1], item[0][0] or "")
    ):
        if teacher is None and student in taught:
            continue  # these runs are in the groups with a teacher
        members = runs if teacher is None else runs + pairs.get((None, student), [])
        group = Group(teacher, student, {})
        _check_recipes(group.pair, members)
        for label, record in _labeled(members):
            _add(group, label, record)
        groups.append(group)
    return groups


def _check_recipes(pair: str, runs: Sequence[RunRecord]) -> None:
    """Raises ConfigError if recipes differ, with each setting, its values and their runs."""
    lines = []
    for setting in sorted({key for run in runs for key in run.settings.recipe}):
        seen: dict[str, RunRecord] = {}
        for run in runs:
            value = run.settings.recipe.get(setting, ABSENT)
            if not _may_differ(setting, value, run):
                seen.setdefault(_text(value), run)
        if len(seen) > 1:
            values = ", ".join(f"{value} in {run.path}" for value, run in seen.items())
            lines.append(f"  {setting}: {values}")
    if lines:
        raise ConfigError(
            f"the runs of {pair} follow different recipes, so they cannot be compared:\n"
            + "\n".join(lines)
            + "\ncompare only the runs of one recipe"
        )


def _may_differ(setting: str, value: object, run: RunRecord) -> bool:
    """Whether a setting may differ: the teacher's without a teacher, an absent fingerprint."""
    if run.teacher is None and "teacher" in setting.lower():
        return True
    return setting in FINGERPRINTS and value is ABSENT


def _labeled(runs: Sequence[RunRecord]) -> Iterable[tuple[str, RunRecord]]:
    """Each run with the label of its method: its name, and the settings that differ in that name.

    The settings of a component are compared among the runs that use the component. The setting
    that chooses the component (Method.policy) shows that a run uses a different one.
    """
    by_name: dict[str, list[RunRecord]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    for name, namesakes in sorted(by_name.items()):
        methods = [run.settings.method for run in namesakes]
        values: dict[str, set[str]] = {}
        for key in {key for method in methods for key in method}:
            users = [method for method in methods if _component(key) in map(_component, method)]
            values[key] = {_text(method.get(key, ABSENT)) for method in users}
        differing = sorted(key for key, found in values.items() if len(found) > 1)
        for run, method in zip(namesakes, methods, strict=True):
            used = set(map(_component, method))
            shown = ", ".join(
                f"{key} = {_text(method.get(key, ABSENT))}"
                for key in differing
                if _component(key) in used
            )
            yield (f"{name} ({shown})" if shown else name), run


def _component(setting: str) -> str:
    """The component that a setting belongs to."""
    return setting.partition(".")[0]


def _add(group: Group, label: str, record: RunRecord) -> None:
    """Adds a run to its method; the method must not have a run of the same seed."""
    if record.seed is None:
        raise ConfigError(
            f"{record.path}: its settings have no seed, so it cannot be paired with other runs"
        )
    first = group.methods.setdefault(label, {}).setdefault(record.seed, record)
    if first is not record:
        raise ConfigError(
            f"two runs of {label}, {group.pair}, have seed {record.seed}: {first.path} and "
            f"{record.path}; leave one of them out"
        )


def _text(value: Any) -> str:
    """A setting's value as JSON; 1 and 1.0 have the same text."""
    if value is ABSENT:
        return "(absent)"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
