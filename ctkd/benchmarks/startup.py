"""The start-up time of the command, over the time that importing torch takes."""

import os
import subprocess
import sys
from collections.abc import Sequence

from ctkd.benchmarks.timing import Section, Work, in_turns, quartiles, ratios, spelled
from ctkd.command_line import PACKAGE
from ctkd.results.compare.tables import Column, Table

BASE = "import torch"
COMMANDS: dict[str, Sequence[str]] = {
    BASE: ("-c", "import torch"),
    "--help": ("-m", "ctkd.main", "--help"),
    "digits --dry_run": ("-m", "ctkd.main", "--gin_file=gin/digits/ctkd.gin", "--dry_run"),
}


def measure_startup(rounds: int) -> Section:
    """Each command as a process of its own, from its start to its end."""
    cases = {name: _process(arguments) for name, arguments in COMMANDS.items()}
    seconds = in_turns(cases, rounds, warm_up=1)
    rows, data = [], []
    for name, values in seconds.items():
        ratio = ratios(values, seconds[BASE])
        rows.append([name, spelled(quartiles(values), 1, 2), spelled(ratio, 1, 2)])
        data.append({"command": name, "seconds": values, "ratio": ratio[1]})
    columns = [Column("command"), Column("s [quartiles]", "number")]
    columns.append(Column("over `import torch`", "number"))
    return Section("startup", "Start-up", Table(columns, rows), data)


def _process(arguments: Sequence[str]) -> Work:
    path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))

    def run() -> None:
        subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            check=True,
        )

    return run
