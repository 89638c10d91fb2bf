"""A run as its work directory tells it, finished or still in progress."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctkd.errors import DataError
from ctkd.results.read.work_files import (
    is_number,
    read_columns,
    read_landscape,
    read_object,
    read_rows,
    read_trace,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SETTINGS_FILE = "settings.json"  # what makes a folder a work directory
TEACHER = "Teacher.fingerprint"  # a configuration may name a teacher that its method leaves out
FINGERPRINTS = (TEACHER, "Dataset.fingerprint")  # which not every run has noted
PASSED_OVER = re.compile(r"teachers|.*\.old-\d+")
SETS = ("method", "recipe", "seed", "runtime")


@dataclass(frozen=True)
class RunRecord:
    """What a run has written so far.

    Attributes:
        path: the work directory.
        name: the method's label ("ctkd").
        settings: the sets "method", "recipe", "seed" and "runtime", each "Component.parameter" ->
            value, in which "@resnet20" is the choice of a component.
        metrics: one row per finished epoch, ascending; accuracies in percent.
        landscape: one row per evaluated epoch, from 0 (before training): the loss L(T) over a grid
            of temperatures, its maximiser, the policy's own temperature. Empty without a teacher.
        trace: the temperature at every step of the first epochs, an array each of step, epoch,
            temperature, low, high and lambda, nan where a field is empty. {} if none was written.
        summary: what the finished run says of itself; None before.
        rows: of a policy with one T per row, the rows of the last probe: columns by name, texts
            ("group", "target") or numbers. {} if none was written.
    """

    path: Path
    name: str
    settings: dict[str, dict[str, Any]]
    metrics: list[dict[str, Any]]
    landscape: list[dict[str, Any]]
    trace: dict[str, "Floats"]
    summary: dict[str, Any] | None
    rows: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the run reached its last epoch."""
        return self.summary is not None and bool(self.summary.get("finished"))

    @property
    def seed(self) -> int | None:
        """The run's seed, or None where the settings name none."""
        value = self._told("seed", "seed", "Seed.seed")
        return value if isinstance(value, int) else None

    @property
    def student(self) -> str:
        """The student's network."""
        return _plain(self._told("student", "recipe", "Recipe.student")) or "?"

    @property
    def teacher(self) -> str | None:
        """The teacher's network, or None for a run without a teacher."""
        used = TEACHER in self.settings["recipe"] or self.summary is not None
        return _plain(self._told("teacher", "recipe", "Teacher.network")) if used else None

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return _plain(self._told("dataset", "recipe", "Recipe.dataset")) or "?"

    @property
    def primary(self) -> str:
        """The metric that "best" means: test_top1 for classification, ap for detection."""
        if self.summary is not None and self.summary.get("primary"):
            return str(self.summary["primary"])
        return "test_top1" if not any("ap" in row for row in self.metrics) else "ap"

    @property
    def measure(self) -> str:
        """The primary metric as summaries spell it: best_top1, last_top1, teacher_top1."""
        return self.primary.removeprefix("test_")

    def series(self, key: str) -> tuple["Floats", "Floats"]:
        """The epochs at which `key` has a finite value in the metrics, and those values."""
        return pick(self.metrics, key)

    def told(self, key: str) -> float | None:
        """A finite number of the summary, or None where there is no such number (yet)."""
        value: Any = (self.summary or {}).get(key)
        return float(value) if is_number(value) else None

    def _told(self, summary_key: str, set_name: str, setting: str) -> Any:
        """The summary's word, which knows what was really used, before that of the settings."""
        if self.summary is not None and summary_key in self.summary:
            return self.summary[summary_key]
        return self.settings[set_name].get(setting)


def pick(rows: Sequence[dict[str, Any]], key: str) -> tuple["Floats", "Floats"]:
    """The epochs of those rows in which `key` is a finite number, and these numbers."""
    import numpy as np

    found = [(row["epoch"], row[key]) for row in rows if is_number(row.get(key))]
    table = np.array(found, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def read_run(path: str | os.PathLike[str]) -> RunRecord:
    """Reads a work directory; of a run in progress, what it has written so far.

    Raises:
        DataError: the folder is no work directory, or one of its files is damaged.
    """
    folder = Path(path)
    settings_file = folder / SETTINGS_FILE
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected the work directory of a run")
    if not settings_file.is_file():
        raise DataError(f"{folder} is not a work directory: it holds no {SETTINGS_FILE}")
    settings = read_object(settings_file)
    for name in SETS:
        if not isinstance(settings.setdefault(name, {}), dict):
            raise DataError(f"{settings_file}: expected an object under {name!r}")
    summary_file = folder / "summary.json"
    return RunRecord(
        path=folder,
        name=str(settings.get("name") or folder.name),
        settings={name: settings[name] for name in SETS},
        metrics=read_rows(folder / "metrics.jsonl"),
        landscape=read_landscape(folder / "landscape.jsonl"),
        trace=read_trace(folder / "temperature.csv"),
        summary=read_object(summary_file) if summary_file.is_file() else None,
        rows=read_columns(folder / "rows.csv"),
    )


def find_runs(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The work directories among `paths` and in the folders below them, each once, sorted.

    Folders named `teachers` are passed over: they hold the teachers that runs trained for
    themselves; so are those named `….old-1`, which --fresh has moved aside. A work directory is
    not searched further.

    Raises:
        DataError: a path is no folder, or holds no work directory at any depth.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise DataError(
                f"{path}: no such folder; expected a work directory, or a folder of them"
            )
        here = []
        for folder, subfolders, files in os.walk(path):
            if SETTINGS_FILE in files:
                here.append(Path(folder))
                subfolders.clear()
            subfolders[:] = [name for name in subfolders if not PASSED_OVER.fullmatch(name)]
        if not here:
            raise DataError(
                f"{path}: no work directory in it (none of its folders holds {SETTINGS_FILE})"
            )
        for folder_path in here:
            found.setdefault(folder_path.resolve(), folder_path)
    return sorted(found.values())


def _plain(choice: Any) -> str | None:
    """The name in a choice of component: "resnet20" in "@scope/resnet20()"."""
    return str(choice).strip("@()").rsplit("/", 1)[-1] or None if choice is not None else None
