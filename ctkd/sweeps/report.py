"""The report of a sweep, finished or not: a page, its table as CSV, and all summaries as CSV."""

import time
from collections.abc import Sequence
from pathlib import Path

from ctkd.errors import WorkdirError
from ctkd.results.compare.sweep_table import SweepRun, runs_table, sweep_cells, sweep_table
from ctkd.results.compare.tables import to_csv
from ctkd.results.sweep_page import sweep_page
from ctkd.sweeps.cell_states import Status, statuses
from ctkd.sweeps.folder import SweepFolder
from ctkd.sweeps.shared_files import write_whole
from ctkd.sweeps.slurm import ClusterError


def write_report(
    folder: SweepFolder, found: Sequence[Status] | None = None, out: Path | None = None
) -> list[Path]:
    """Writes report.html, report.csv and runs.csv; returns their paths.

    If SLURM does not answer or is missing, the state of unfinished runs is "unknown".

    Args:
        found: the states of the runs; None to determine them.
        out: the folder for the files; None for the directory of the sweep.

    Raises:
        DataError: the directory does not belong to a sweep.
        WorkdirError: the files cannot be written.
    """
    sweep = folder.read()
    if found is None:
        try:
            found = statuses(folder)
        except ClusterError:
            found = statuses(folder, ask=False)
    cells = sweep_cells([_sweep_run(folder, status) for status in found], sweep.baseline)
    target = folder.path if out is None else out.absolute()
    texts = {
        "report.html": sweep_page(sweep.name, sweep.axes, cells, target, time.time()),
        "report.csv": to_csv(sweep_table(cells, sweep.axes)),
        "runs.csv": to_csv(runs_table(cells, sweep.axes)),
    }
    try:
        for name, text in texts.items():
            write_whole(target / name, text)
    except OSError as error:
        advice = "" if out else "; `ctkd report --out` writes it into another folder"
        raise WorkdirError(f"cannot write the report: {error}{advice}") from error
    return [target / name for name in texts]


def _sweep_run(folder: SweepFolder, status: Status) -> SweepRun:
    return SweepRun(
        cell=status.cell.label,
        labels=status.cell.labels,
        seed=status.cell.seed,
        state=status.shown,
        path=folder.workdir(status.cell.key),
        epochs=status.cell.epochs,
        error=status.error,
        log=status.log,
        command=status.cell.command,
    )
