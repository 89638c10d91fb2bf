"""Runs of one pair of networks, divided by recipe: only runs of one recipe are compared."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ctkd.results.read.runs import FINGERPRINTS, RunRecord

ABSENT = object()
SHOWN = 3  # settings that the text of a recipe names


@dataclass
class RunsOfRecipe:
    """The runs of one recipe.

    Attributes:
        known: the text of each setting's value, without values that may differ.
        title: the settings in which it differs from the other recipes of the pair; "" for one.
    """

    runs: list[RunRecord]
    known: dict[str, str] = field(default_factory=dict)
    title: str = ""


def by_recipe(runs: Sequence[RunRecord]) -> list[RunsOfRecipe]:
    """The recipes of the runs; a run without a teacher belongs to each recipe that it fits.

    Settings of a teacher may differ from those of a run without one, and a fingerprint may be
    absent.
    """
    names = sorted({name for run in runs for name in run.settings.recipe})
    found: list[RunsOfRecipe] = []
    for run in sorted(runs, key=lambda run: run.teacher is None):
        own = {name: text_of(run.settings.recipe.get(name, ABSENT)) for name in names}
        own = {name: text for name, text in own.items() if not _may_differ(run, name)}
        fitting = [r for r in found if all(r.known.get(k, text) == text for k, text in own.items())]
        if not fitting:
            fitting = [RunsOfRecipe([])]
            found += fitting
        for recipe in fitting if run.teacher is None else fitting[:1]:
            recipe.runs.append(run)
            recipe.known |= own
    for recipe in found:
        recipe.title = _title(recipe, found)
    return found


def _may_differ(run: RunRecord, name: str) -> bool:
    """Whether recipes may differ in it: of the teacher, without one; a missing fingerprint."""
    if run.teacher is None and "teacher" in name.lower():
        return True
    return name in FINGERPRINTS and name not in run.settings.recipe


def _title(recipe: RunsOfRecipe, recipes: Sequence[RunsOfRecipe]) -> str:
    """`epochs = 10, lr = 0.1`: the settings that differ between the recipes."""
    differing = [
        name
        for name in recipe.known
        if len({r.known[name] for r in recipes if name in r.known}) > 1
    ]
    ends = [name.rpartition(".")[2] for name in recipe.known]
    short = {n: end if ends.count(end := n.rpartition(".")[2]) == 1 else n for n in differing}
    parts = [f"{short[name]} = {recipe.known[name]}" for name in differing[:SHOWN]]
    if len(differing) > SHOWN:
        parts.append(f"and {len(differing) - SHOWN} more settings")
    return ", ".join(parts)


def text_of(value: Any) -> str:
    """A setting's value as JSON; 1 and 1.0 have the same text."""
    if value is ABSENT:
        return "(absent)"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
