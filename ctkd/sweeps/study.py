"""Reads a sweep's Gin file and makes its cells, each with the command line of its run."""

import hashlib
import itertools
import os
import pathlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ctkd.engine.config import parse as config
from ctkd.engine.config.gin_files import find, find_named
from ctkd.errors import ConfigError
from ctkd.files import expand_user
from ctkd.registry import COMPONENTS, gin
from ctkd.sweeps.axes import Choice, Conditions, choices_of, holds
from ctkd.sweeps.study_settings import Resources, Sweep


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        key: the name of its work directory, unique in the sweep.
        name: the run's name, the same for all seeds.
        label: its text without the seed, different for all cells of one seed.
        choices: its alternatives, one for each of its axes.
        files, params: its configuration for the command line; files with absolute paths.
    """

    key: str
    name: str
    label: str
    choices: tuple[Choice, ...]
    seed: int
    files: tuple[str, ...]
    params: tuple[str, ...]

    @property
    def title(self) -> str:
        """Its name in messages."""
        choices = ", ".join(f"{choice.axis} = {choice.label}" for choice in self.choices)
        return f"{choices}, seed {self.seed}" if choices else f"seed {self.seed}"

    def command(self, workdir: str | os.PathLike[str], processes: int = 1) -> str:
        """The command that trains it by hand, with all its processes on this machine."""
        several = f"torchrun --standalone --nproc_per_node={processes}"
        words = [f"{several if processes > 1 else 'python'} -m ctkd.main"]
        words += [f"--gin_file={_quoted(_short(file))}" for file in self.files]
        words += [f"--gin_param={_quoted(param)}" for param in self.params]
        return " ".join([*words, f"--workdir={_quoted(_short(str(workdir)))}"])


@dataclass(frozen=True)
class Study:
    """A sweep, read and expanded; `axes` are their names in order."""

    name: str
    path: pathlib.Path
    sweep: Sweep
    resources: Resources
    axes: tuple[str, ...]
    cells: tuple[Cell, ...]
    config: str

    def line_of(self, text: str) -> str:
        """The line of the sweep's file with `text`, as "FILE, line N"; or only the file."""
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(rf"(['\"]){re.escape(text)}\1", line):
                return f"{_short(str(self.path))}, line {number}"
        return _short(str(self.path))


def read_study(
    path: str, files: Sequence[str] = (), params: Sequence[str] = (), own: Sequence[str] = ()
) -> Study:
    """Reads a sweep's Gin file and expands it.

    Args:
        files, params: given on the command line, for every run; they come last.
        own: bindings of the sweep: "Sweep.seeds = [0]", "Resources.gpus = 2".

    Raises:
        ConfigError: the file is wrong, an axis is empty or unknown, or two cells are equal.
    """
    path = expand_user(path, "--sweep")
    files = [expand_user(file, "--gin_file") for file in files]
    read = config.parse([path], own, "--sweep_param")
    sweep, resources = _part("Sweep"), _part("Resources")
    assert isinstance(sweep, Sweep)
    assert isinstance(resources, Resources)
    text = gin.config_str()
    title = sweep.name or pathlib.Path(path).stem
    axes, combinations = expand(sweep)
    for param in (*sweep.params, *params):
        if re.match(r"\s*(Seed\.)?seed\s*=", param):
            raise ConfigError(f"{param!r}: a sweep's seeds are Sweep.seeds, a list of them")

    def found(names: Sequence[str]) -> list[str]:
        return [str(find_named(name, read, own)) for name in names]

    base, last = found(sweep.base), [*found(sweep.after), *(str(find(file)) for file in files)]
    cells = []
    # A cell's seeds are neighbors: two runs of one seed at the same time would both compute the
    # teacher's rows that neither has found in its cache.
    for choices, seed in _seeds_of(sweep, axes, combinations):
        chosen = found([file for choice in choices for file in choice.files])
        if not (base or chosen):
            raise ConfigError(f"{path}: no run has a Gin file: set Sweep.base to a list of them")
        name = run_name(choices, sweep.unnamed) or pathlib.Path((base or chosen)[0]).stem
        label = run_name(choices) or name
        chosen_params = [param for choice in choices for param in choice.params]
        given = [f"Runtime.name = {name!r}", *sweep.params, *chosen_params, f"Seed.seed = {seed}"]
        everything = (*base, *chosen, *last), (*given, *params)
        cells.append(Cell(f"{_slug(label)}-seed{seed}", name, label, choices, seed, *everything))
    return Study(title, find(path), sweep, resources, axes, tuple(cells), text)


def _seeds_of(
    sweep: Sweep, axes: Sequence[str], combinations: Sequence[tuple[Choice, ...]]
) -> list[tuple[tuple[Choice, ...], int]]:
    """Each cell's seeds: the seeds of all cells, then the additional seeds of some."""
    further = Conditions("Sweep.more_seeds", _labels(axes, combinations))
    more = [(further.read(entry), seeds) for entry, seeds in sweep.more_seeds]
    pairs = [(choices, seed) for choices in combinations for seed in sweep.seeds]
    pairs += [
        (choices, seed)
        for choices in combinations
        for wanted, seeds in more
        for seed in seeds
        if holds(wanted, choices)
    ]
    return list(dict.fromkeys(pairs))


def expand(sweep: Sweep) -> tuple[tuple[str, ...], list[tuple[Choice, ...]]]:
    """The axes of a sweep, and its cells' alternatives without their seeds.

    Raises:
        ConfigError: an axis is given twice, two cells are equal, or no cell remains.
    """
    tables: list[list[tuple[Choice, ...]]]
    tables = [[(choice,) for choice in choices_of(k, v)] for k, v in sweep.grid.items()]
    zipped = [choices_of(axis, values) for axis, values in sweep.zipped.items()]
    if zipped:
        tables.append(list(zip(*zipped, strict=True)))
    if sweep.cells:
        written = [
            tuple(choices_of(axis, [value])[0] for axis, value in cell.items())
            for cell in sweep.cells
        ]
        tables.append(written)
    combinations = [tuple(itertools.chain(*parts)) for parts in itertools.product(*tables)]
    axes = tuple(dict.fromkeys(choice.axis for cell in combinations for choice in cell))
    for cell in combinations:
        names = [choice.axis for choice in cell]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"the axis {name!r} is in two of grid, zipped and cells")
    twice = _first_repeated([_identity(cell) for cell in combinations])
    if twice:
        raise ConfigError(f"the cell {', '.join(f'{k} = {v}' for k, v in twice)} is there twice")
    return axes, _conditioned(sweep, axes, combinations)


def _conditioned(
    sweep: Sweep, axes: Sequence[str], combinations: list[tuple[Choice, ...]]
) -> list[tuple[Choice, ...]]:
    """The cells that remain after `skip` and `only`."""
    labels = _labels(axes, combinations)
    Conditions("Sweep.baseline", labels).read(sweep.baseline)
    for axis in sweep.unnamed:
        Conditions("Sweep.unnamed", labels).check_axis(axis)
    only = Conditions("Sweep.only", labels)
    allowed = {axis: only.read(wanted) for axis, wanted in sweep.only.items()}
    for axis in allowed:
        only.check_axis(axis)
    skipped = [Conditions("Sweep.skip", labels).read(entry) for entry in sweep.skip]
    kept: dict[Any, tuple[Choice, ...]] = {}
    for cell in combinations:
        left = tuple(
            choice
            for choice in cell
            if choice.axis not in allowed or holds(allowed[choice.axis], cell)
        )
        if not any(holds(wanted, left) for wanted in skipped):
            kept.setdefault(_identity(left), left)  # cells that differed only in a dropped axis
    if not kept:
        raise ConfigError("Sweep.skip removes every cell")
    return list(kept.values())


def _labels(axes: Sequence[str], combinations: Sequence[tuple[Choice, ...]]) -> dict[str, set[str]]:
    """The values of each axis."""
    labels: dict[str, set[str]] = {axis: set() for axis in axes}
    for cell in combinations:
        for choice in cell:
            labels[choice.axis].add(choice.label)
    return labels


def run_name(choices: Sequence[Choice], without: Sequence[str] = ()) -> str:
    """The labels of alternatives, and values with the shortest unique name of their axis."""
    shown = [choice for choice in choices if choice.axis not in without]
    short = {c.axis: c.axis.rpartition(".")[2] for c in choices}
    parts = []
    for choice in shown:
        name = short[choice.axis]
        if list(short.values()).count(name) > 1:
            name = choice.axis
        is_value = choice.params and choice.params[0].startswith(f"{choice.axis} = ")
        parts.append(f"{name}={choice.label}" if is_value else choice.label)
    return " ".join(parts)


def _identity(cell: Sequence[Choice]) -> tuple[tuple[str, str], ...]:
    return tuple((choice.axis, choice.label) for choice in cell)


def _first_repeated(items: Sequence[Any]) -> Any:
    seen = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None


def _part(name: str) -> Any:
    try:
        return COMPONENTS[name].bound()
    except ConfigError as error:  # without the lines that Gin adds about its own call
        raise ConfigError(str(error).split("\n  In call to")[0]) from error


def _slug(label: str) -> str:
    """A label as a folder's name; with a hash if it had to be changed."""
    slug = re.sub(r"[^\w.=+-]+", "_", label)[:100].strip("_.") or "run"
    changed = slug != label.replace(" ", "_")
    return f"{slug}-{hashlib.sha256(label.encode()).hexdigest()[:6]}" if changed else slug


def _quoted(word: str) -> str:
    """A word quoted for a shell, with double quotes if these are sufficient."""
    plain = "'" in word and not set(word) & set('"$`\\!')
    return f'"{word}"' if plain else shlex.quote(word)


def _short(path: str) -> str:
    """A path, relative if it is below the working directory."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
