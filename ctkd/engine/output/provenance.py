"""Where a run came from: `provenance.jsonl` in its work directory, a line for each start."""

import contextlib
import datetime
import functools
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any

import torch

import ctkd
from ctkd.command_line import PACKAGE
from ctkd.results.read.schema import PROVENANCE_FILE


def provenance() -> dict[str, Any]:
    """The date, the command, the host, and the versions of ctkd, PyTorch and Python."""
    return {
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "folder": os.getcwd(),
        "host": platform.node(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "ctkd": ctkd.__version__,
        "commit": commit_of(PACKAGE),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


@functools.cache  # asked once for all runs of a process
def commit_of(folder: pathlib.Path) -> str | None:
    """The commit of the clone that contains the package; None where it is installed elsewhere.

    "+changes" follows where files differ from the commit.
    """
    if not (folder.parent / ".git").exists():  # a wheel may lie inside another repository
        return None
    try:
        describe = ["git", "-C", str(folder), "describe", "--always", "--dirty=+changes"]
        done = subprocess.run(describe, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def write_provenance(folder: pathlib.Path) -> None:
    """Adds a line for this start. If the folder cannot be written, the first record reports it."""
    with (
        contextlib.suppress(OSError),
        (folder / PROVENANCE_FILE).open("a", encoding="utf-8") as stream,
    ):
        stream.write(json.dumps(provenance()) + "\n")
