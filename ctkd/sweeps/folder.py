"""The directory of a sweep: its description, its ledger, and the work directories of its runs.

sweep.json   every cell that was ever sent
sweep.gin    the newest configuration that was sent
sent.jsonl              what was sent and when
jobs/                   of SLURM: batch scripts, pickled jobs, logs; of this machine: CELL.log
notes/                  the state of each run, written by its job or by the launcher here
runs/                   the work directories, and the teachers they share
report.html, report.csv, runs.csv
"""

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctkd.errors import DataError, WorkdirError
from ctkd.files import owner_of, user_path
from ctkd.locks import is_locked, locked
from ctkd.sweeps.cell_job import CellJob
from ctkd.sweeps.ledger import Ledger
from ctkd.sweeps.shared_files import read_json, write_whole
from ctkd.sweeps.study import Study
from ctkd.sweeps.study_settings import Resources

if TYPE_CHECKING:
    from ctkd.sweeps.check import Plan

SWEEPS = Path("runs") / "sweeps"  # the default folder of sweeps


@dataclass(frozen=True)
class SavedCell:
    """A cell in `sweep.json`; see `ctkd.sweeps.study.Cell`.

    Attributes:
        identity: of its run: what it trains, but not the machine or the speed settings.
        shares: equal in cells that can share data and teacher in one process; empty for none.
    """

    key: str
    name: str
    label: str
    seed: int
    labels: dict[str, str]
    files: tuple[str, ...]
    params: tuple[str, ...]
    command: str
    epochs: int
    identity: str = ""  # earlier versions did not note it
    shares: str = ""


@dataclass(frozen=True)
class SavedSweep:
    """`sweep.json`: the sweep's description for commands without its Gin file."""

    name: str
    axes: tuple[str, ...]
    baseline: dict[str, str]
    resources: Resources
    cells: tuple[SavedCell, ...]


class SweepFolder:
    """The directory of a sweep, with its absolute path."""

    def __init__(self, path: Path) -> None:
        """Creates nothing on the disk."""
        self.path = user_path(path, "--sweep_dir").absolute()
        self.ledger = Ledger(self.path / "sent.jsonl")
        self.trains_here = False  # whether this process runs cells; see `LocalRuns`
        self._is_owned = False  # whether this object has the lock of `owned`

    @property
    def jobs(self) -> Path:
        """The folder of submitit, and of the logs."""
        return self.path / "jobs"

    @property
    def has_launcher(self) -> bool:
        """Whether a launcher, in this process or another, runs cells on this machine now."""
        # A test of this process's own lock would release it.
        return self.trains_here if self._is_owned else is_locked(self.path / ".lock")

    def is_training(self, key: str) -> bool:
        """Whether a process, the launcher's or a user's, trains in a cell's work directory."""
        return is_locked(self.workdir(key) / ".lock")

    def local_log(self, key: str) -> Path:
        """The log of a cell's run on this machine."""
        return self.jobs / f"{key}.log"

    def workdir(self, key: str) -> Path:
        """A cell's work directory."""
        return self.path / "runs" / key

    def note(self, key: str) -> Path:
        """The file with the state of a cell's run."""
        return self.path / "notes" / f"{key}.json"

    def write_note(self, key: str, **fields: Any) -> None:
        """Writes the state of a run on this machine, for the commands that follow the sweep."""
        note = {"job": None, "node": socket.gethostname(), "time": time.time(), **fields}
        write_whole(self.note(key), json.dumps(note) + "\n")

    def task(self, cell: SavedCell, resources: Resources) -> CellJob:
        """The job that is submitted for a cell."""
        return CellJob(
            cell.files,
            cell.params,
            str(self.workdir(cell.key)),
            str(self.note(cell.key)),
            resources.processes,
            resources.grace,
        )

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Locks the directory against other launchers while cells are sent, or run here.

        Raises:
            WorkdirError: the directory cannot be made, or another launcher uses it.
        """
        try:
            with locked(self.path / ".lock", seconds=10) as ours:
                if not ours:
                    raise WorkdirError(
                        f"another launcher is running or sending the sweep {self.path}; --status "
                        "shows its runs"
                    )
                self._is_owned = True
                try:
                    yield
                finally:
                    self._is_owned = False
        except OSError as error:
            raise WorkdirError(
                f"cannot use {self.path}: {error.strerror}{owner_of(self.path)}; give another "
                "--sweep_dir"
            ) from error

    def claim(self, saved: SavedSweep, config: str) -> None:
        """Writes the description. The directory must be new or belong to this sweep.

        Cells may be added to a sweep (a seed, a value), or left out this time: cells that were
        sent earlier stay. A cell's resources may change, but not its training.

        Raises:
            WorkdirError: the directory belongs to another sweep, or to none.
        """
        if not (self.path / "sweep.json").exists():
            hidden = (entry for entry in self.path.iterdir() if not entry.name.startswith("."))
            strangers = sorted(entry.name for entry in hidden)
            if strangers:
                listed = ", ".join(strangers[:5])
                raise WorkdirError(f"{self.path} is not a sweep's directory: it contains {listed}")
        else:
            saved = self._joined(self.read(), saved)
        text = json.dumps(asdict(saved), indent=1, default=str) + "\n"
        write_whole(self.path / "sweep.json", text)
        write_whole(self.path / "sweep.gin", config)

    def _joined(self, old: SavedSweep, saved: SavedSweep) -> SavedSweep:
        """`saved` with the sent cells of `old` that it lacks.

        Raises WorkdirError unless both describe the same sweep.
        """
        problems = [
            f"its {what} {there} there, {here} here"
            for what, there, here in (
                ("name is", old.name, saved.name),
                ("axes are", ", ".join(old.axes) or "none", ", ".join(saved.axes) or "none"),
            )
            if there != here
        ]
        before = {cell.key: cell for cell in old.cells}
        for cell in saved.cells:
            was = before.get(cell.key)
            if was is not None and was.identity and was.identity != cell.identity:
                problems.append(f"the cell {cell.key} {_change(was, cell)}")
        if problems:
            lines = "\n  ".join(problems[:8])
            raise WorkdirError(
                f"{self.path} belongs to another sweep:\n  {lines}\ngive another --sweep_dir"
            )
        asked, sent = {cell.key for cell in saved.cells}, self.ledger.read()
        kept = [cell for cell in old.cells if cell.key in sent and cell.key not in asked]
        return replace(saved, cells=(*kept, *saved.cells))

    def read(self) -> SavedSweep:
        """The description. Raises DataError if it is missing or cannot be read."""
        path = self.path / "sweep.json"
        try:
            path.open().close()
        except PermissionError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}{owner_of(path)}") from error
        except OSError:
            pass  # there is no such file
        saved: dict[str, Any] | None = read_json(path)
        if saved is None:
            raise DataError(f"{self.path} is not a sweep's directory: it contains no sweep.json")
        try:
            cells = [
                SavedCell(**{**c, "files": tuple(c["files"]), "params": tuple(c["params"])})
                for c in saved["cells"]
            ]
            resources = Resources(**saved["resources"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.path / 'sweep.json'} is of another version: {error}") from error
        return SavedSweep(
            saved["name"], tuple(saved["axes"]), saved["baseline"], resources, tuple(cells)
        )


def _change(was: SavedCell, cell: SavedCell) -> str:
    """How the command of a cell differs from the saved one, when the two train different things."""
    before, now = was.files + was.params, cell.files + cell.params
    gone, come = (sorted(set(a) - set(b)) for a, b in ((before, now), (now, before)))
    if not gone and not come:
        return "trains another run than there: its Gin files, or their order, were changed"
    what = f"has {', '.join(gone) or 'no more'} there, {', '.join(come) or 'no more'} here"
    return f"{what}; or its Gin files were changed"


def saved_sweep(study: Study, folder: SweepFolder, plans: Sequence["Plan"]) -> SavedSweep:
    """The description of a checked study, for its directory."""
    from ctkd.sweeps.axes import label_of

    processes = study.resources.nodes * study.resources.tasks
    cells = tuple(
        SavedCell(
            plan.cell.key,
            plan.cell.name,
            plan.cell.label,
            plan.cell.seed,
            {choice.axis: choice.label for choice in plan.cell.choices},
            plan.cell.files,
            plan.cell.params,
            plan.cell.command(folder.workdir(plan.cell.key), processes),
            plan.epochs,
            plan.identity,
            plan.shares,
        )
        for plan in plans
    )
    baseline = {axis: label_of(value) for axis, value in study.sweep.baseline.items()}
    return SavedSweep(study.name, study.axes, baseline, study.resources, cells)
