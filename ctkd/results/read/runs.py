"""A run, finished or in progress, read from its work directory."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctkd.errors import DataError
from ctkd.results.read import schema, work_files
from ctkd.results.read.measures import MEASURES, Measure, measure
from ctkd.results.read.schema import SETTINGS_FILE, EpochRecord, RunSettings, RunSummary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

TEACHER = "Teacher.fingerprint"  # absent if the method does not use the configured teacher
FINGERPRINTS = (TEACHER, "Dataset.fingerprint")  # absent from some runs
SKIPPED = re.compile(r"teachers|.*\.old-\d+")


@dataclass(frozen=True)
class RunRecord:
    """The files of a run, as far as they exist.

    Attributes:
        path: the work directory.
        name: the method's label ("ctkd").
        settings: the values of the run's settings.
        metrics: one record per finished epoch, ascending.
        landscape: one row per evaluated epoch, from 0 (before training): the loss L(T) over a grid
            of temperatures, its maximizer, the policy's temperature. Empty without a teacher.
        trace: the temperature at every step of the first epochs: one array per column, nan where a
            field is empty. {} without the file.
        summary: the result; None before the run has finished.
        rows: for a policy with one T per row, the rows of the last probe: one array per column.
            {} without the file.
    """

    path: Path
    name: str
    settings: RunSettings
    metrics: list[EpochRecord] = field(default_factory=list)
    landscape: list[dict[str, Any]] = field(default_factory=list)
    trace: dict[str, "Floats"] = field(default_factory=dict)
    summary: RunSummary | None = None
    rows: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the run reached its last epoch."""
        return self.summary is not None and self.summary.finished

    @property
    def seed(self) -> int | None:
        """The run's seed, or None if neither summary nor settings contain one."""
        value = self._used("seed", self.settings.seed, "Seed.seed")
        return value if isinstance(value, int) else None

    @property
    def student(self) -> str:
        """The student's network."""
        return _plain(self._used("student", self.settings.recipe, "Recipe.student")) or "?"

    @property
    def teacher(self) -> str | None:
        """The teacher's network, or None for a run without a teacher."""
        if self.summary is not None or TEACHER not in self.settings.recipe:
            return _plain(self.summary and self.summary.teacher)
        return _plain(self.settings.recipe.get("Teacher.network"))

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return _plain(self._used("dataset", self.settings.recipe, "Recipe.dataset")) or "?"

    @property
    def primary(self) -> str:
        """The metric that "best" means: test_top1 for classification, ap for detection."""
        if self.summary is not None:
            return self.summary.primary
        measured = {key for row in self.metrics for key in row.more}
        return next((name for name in MEASURES if name in measured), "test_top1")

    @property
    def shown(self) -> Measure:
        """The name, unit and digits of the primary metric."""
        return measure(self.primary, self.summary is not None and self.summary.lower_is_better)

    @property
    def measure(self) -> str:
        """The primary metric in the keys of a summary, see `measure_of`."""
        return schema.measure_of(self.primary)

    def series(self, key: str) -> tuple["Floats", "Floats"]:
        """The epochs at which `key` has a finite value in the metrics, and those values."""
        return pick(self.metrics, key)

    def result(self, key: str) -> float | None:
        """A finite number of the summary, or None if there is no such number (yet)."""
        value: Any = self.summary.to_json().get(key) if self.summary else None
        return float(value) if work_files.is_number(value) else None

    def _used(self, key: str, settings: Mapping[str, Any], name: str) -> Any:
        """The value in the summary, otherwise in the settings."""
        value = getattr(self.summary, key, None)
        return settings.get(name) if value is None else value


def pick(
    rows: Sequence[EpochRecord] | Sequence[Mapping[str, Any]], key: str
) -> tuple["Floats", "Floats"]:
    """The epochs of the rows in which `key` is a finite number, and these numbers."""
    import numpy as np

    found = [(row.get("epoch"), row.get(key)) for row in rows if work_files.is_number(row.get(key))]
    table = np.array(found, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def read_run(path: str | os.PathLike[str]) -> RunRecord:
    """Reads a work directory; for a run in progress, the files written until now.

    Raises:
        DataError: the folder is not a work directory, or one of its files is damaged.
    """
    folder = Path(path)
    settings_file, summary_file = folder / SETTINGS_FILE, folder / schema.SUMMARY_FILE
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected the work directory of a run")
    if not settings_file.is_file():
        raise DataError(f"{folder} is not a work directory: it contains no {SETTINGS_FILE}")
    try:
        settings = RunSettings.from_json(work_files.read_object(settings_file))
    except ValueError as error:
        raise DataError(f"{settings_file}: expected {error}") from error
    rows = work_files.read_rows(folder / schema.METRICS_FILE)
    summary = work_files.read_object(summary_file) if summary_file.is_file() else None
    return RunRecord(
        path=folder,
        name=settings.name or folder.name,
        settings=settings,
        metrics=[EpochRecord.from_json(row) for row in rows],
        landscape=work_files.read_landscape(folder / schema.LANDSCAPE_FILE),
        trace=work_files.read_trace(folder / schema.TRACE_FILE),
        summary=None if summary is None else RunSummary.from_json(summary),
        rows=work_files.read_columns(folder / schema.ROWS_FILE),
    )


def find_runs(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The work directories among `paths` and in the folders below them, each once, sorted.

    Folders named `teachers` are skipped: they contain the teachers that runs trained. Folders named
    `….old-1`, which --fresh moved aside, are also skipped. A work directory is not searched
    further.

    Raises:
        DataError: a path is not a folder, or contains no work directory at any depth.
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
            subfolders[:] = [name for name in subfolders if not SKIPPED.fullmatch(name)]
        if not here:
            raise DataError(
                f"{path}: no work directory in it (none of its folders contains {SETTINGS_FILE})"
            )
        for folder_path in here:
            found.setdefault(folder_path.resolve(), folder_path)
    return sorted(found.values())


def _plain(choice: Any) -> str | None:
    """The name in a choice of component: "resnet20" in "@scope/resnet20()"."""
    return str(choice).strip("@()").rsplit("/", 1)[-1] or None if choice is not None else None
