"""Groups of runs that can be compared: one pair of networks, one recipe, one run per seed.

Runs of one teacher, student and recipe form a group. Runs without a teacher belong to every group
of their student that has their recipe. A method is identified by its name and, if
runs with the same name differ in the method's settings (a sweep), also by these settings.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ctkd.errors import ConfigError
from ctkd.results.compare.recipes import ABSENT, by_recipe, text_of
from ctkd.results.read.runs import RunRecord


@dataclass(frozen=True)
class Group:
    """Finished runs of one teacher (None: without one), student and recipe, by method and seed.

    Attributes:
        recipe: what differs from the other recipes of the pair, such as "epochs = 10"; "" if the
            pair has one recipe.
    """

    teacher: str | None
    student: str
    methods: dict[str, dict[int, RunRecord]]
    recipe: str = ""

    @property
    def pair(self) -> str:
        """The name of the pair in tables, with its recipe if there are several."""
        pair = f"{self.teacher} → {self.student}" if self.teacher else f"{self.student} alone"
        return f"{pair}, {self.recipe}" if self.recipe else pair


def group_runs(records: Sequence[RunRecord]) -> list[Group]:
    """The groups, sorted by pair, their methods by name.

    Raises:
        ConfigError: two runs share pair, recipe, method and seed.
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
        for recipe in by_recipe(members):
            group = Group(teacher, student, {}, recipe.title)
            for label, record in _labeled(recipe.runs):
                _add(group, label, record)
            groups.append(group)
    return groups


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
            values[key] = {text_of(method.get(key, ABSENT)) for method in users}
        differing = sorted(key for key, found in values.items() if len(found) > 1)
        for run, method in zip(namesakes, methods, strict=True):
            used = set(map(_component, method))
            shown = ", ".join(
                f"{key} = {text_of(method.get(key, ABSENT))}"
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
