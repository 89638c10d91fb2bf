"""The difference of two runs: the settings in their config.gin, and where they come from."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctkd.errors import DataError
from ctkd.results.read.schema import CONFIG_FILE, PROVENANCE_FILE

NONE = "–"  # a value that a run does not have


@dataclass(frozen=True)
class Difference:
    """The names with different values in one file: (name, value of A, value of B)."""

    file: str
    rows: list[tuple[str, str, str]]


def differences_of(one: Path, other: Path) -> list[Difference]:
    """The differences of two work directories, by file.

    Of `provenance.jsonl` the last start of each run counts.

    Raises:
        DataError: a folder has no config.gin.
    """
    settings = [read_config(folder / CONFIG_FILE) for folder in (one, other)]
    origins = [_last_start(folder / PROVENANCE_FILE) for folder in (one, other)]
    return [
        Difference(CONFIG_FILE, _differing(*settings)),
        Difference(PROVENANCE_FILE, _differing(*origins)),
    ]


def read_config(path: Path) -> dict[str, str]:
    """The bindings of a config.gin: name and text of the value, in one line each.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read: expected the config.gin of a work directory"
        ) from error
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line[:1].isspace() and name:  # the value goes on
            found[name] = f"{found[name]} {line.strip()}".strip()
        elif " =" in line and not line.startswith("#"):
            name, _, value = line.partition(" =")
            found[name] = value.strip().removesuffix("\\").strip()
    return found


def _last_start(path: Path) -> dict[str, str]:
    """The last line of provenance.jsonl; empty without the file, as in old runs."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    try:
        found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    except ValueError as error:
        raise DataError(f"{path}, line {len(lines)}: damaged, not JSON ({error})") from error
    return {name: str(value) for name, value in found.items()}


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[tuple[str, str, str]]:
    names = dict.fromkeys([*one, *other])
    pairs = ((name, one.get(name, NONE), other.get(name, NONE)) for name in names)
    return [(name, a, b) for name, a, b in pairs if a != b]


def difference_text(one: Path, other: Path, width: int | None = None) -> str:
    """The differences for a reader: aligned columns, or below one another if these are too wide.

    `width` is that of the terminal, which is the default.
    """
    width = width or shutil.get_terminal_size().columns
    lines = [f"A: {one}", f"B: {other}"]
    for difference in differences_of(one, other):
        lines.append("")
        if not difference.rows:
            lines.append(f"{difference.file}: no difference")
            continue
        rows = [(difference.file, "A", "B"), *difference.rows]
        widths = [max(len(row[side]) for row in rows) for side in range(3)]
        if sum(widths) + 4 <= width:
            lines += [f"{n:<{widths[0]}}  {a:<{widths[1]}}  {b}".rstrip() for n, a, b in rows]
        else:
            lines.append(difference.file)
            for name, a, b in difference.rows:
                lines += [f"  {name}", f"    A  {a}", f"    B  {b}"]
    return "\n".join(lines) + "\n"
