"""Trains several cells of a sweep in one process, which reads data and teacher once.

    python -m ctkd.sweeps.cell_group SWEEP_DIR CELL CELL …

Each cell has its own work directory, log and note, as if it were trained alone.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

from ctkd.engine.exit_status import exit_status, leave
from ctkd.engine.interrupt import EarlyInterrupts
from ctkd.errors import Interrupted
from ctkd.memory import keep_freed_memory
from ctkd.standard_output import SafeStream
from ctkd.sweeps.folder import SavedCell, SweepFolder


def groups_of(cells: Sequence[SavedCell], size: int) -> list[tuple[SavedCell, ...]]:
    """The cells in groups of at most `size` that can share data and teacher, in their order."""
    groups: list[list[SavedCell]] = []
    open_groups: dict[str, list[SavedCell]] = {}
    for cell in cells:
        group = open_groups.get(cell.shares)
        if group is None or len(group) == size or not cell.shares:
            group = open_groups[cell.shares] = []
            groups.append(group)
        group.append(cell)
    return [tuple(group) for group in groups]


def train_cells(folder: SweepFolder, cells: Sequence[SavedCell], early: EarlyInterrupts) -> None:
    """Trains the cells; see `execute_group`. A cell that ends gets its note at once."""
    keep_freed_memory()  # before torch allocates anything
    from ctkd.engine.group import execute_group
    from ctkd.engine.job import Job
    from ctkd.engine.output.console import Console

    early.raise_if_signalled()
    jobs = [Job(cell.files, cell.params, str(folder.workdir(cell.key))) for cell in cells]

    def ended(number: int, error: Exception | None) -> None:
        if not isinstance(error, Interrupted):  # the launcher notes interrupted runs
            state = {"state": "finished"} if error is None else {"state": "failed"}
            more = {} if error is None else {"error": str(error)}
            folder.write_note(cells[number].key, **state, **more)

    with contextlib.ExitStack() as logs:
        consoles = []
        for cell in cells:
            log = logs.enter_context(folder.local_log(cell.key).open("a", encoding="utf-8"))
            consoles.append(Console(live=False, file=cast(IO[str], SafeStream(log))))
        execute_group(jobs, consoles, ended)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status of `ctkd train`."""
    path, *keys = sys.argv[1:] if arguments is None else arguments
    folder = SweepFolder(Path(path))
    cells = {cell.key: cell for cell in folder.read().cells}
    return exit_status(lambda early: train_cells(folder, [cells[key] for key in keys], early))


if __name__ == "__main__":
    leave(main())
