"""Small files that several processes share; a reader never sees a partly written file.

This module does not import torch: a job writes its first note before that.
"""

import json
from pathlib import Path
from typing import Any

from ctkd.files import replacing

TAIL = 4096  # bytes read at the end of a log


def write_whole(path: Path, text: str) -> None:
    """Replaces the content of `path`; a reader sees the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def count_epochs(workdir: Path) -> int:
    """The number of finished epochs in a work directory."""
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def last_lines(log: Path) -> list[str]:
    """The last lines of a log that are not empty."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if the file is missing or cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
