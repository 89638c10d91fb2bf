"""Readers and writers of the files of a work directory; an error names the file and the line."""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctkd.errors import DataError
from ctkd.results.read.schema import ROW_COLUMNS, ROW_TEXTS, TRACE_COLUMNS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        value = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: damaged, not JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: damaged, not text in UTF-8 ({error.reason})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_rows(
    path: Path, complain: Callable[[dict[str, Any]], str | None] = lambda row: None
) -> list[dict[str, Any]]:
    """The rows of a file with one JSON object per line, by epoch; none if there is no file.

    A last line without its newline was cut when the run was stopped: it is ignored if it does not
    parse. Of two lines for one epoch the later counts: a resumed run repeated the epoch.
    `complain` returns what was expected for a wrong row, otherwise None.
    """
    rows: dict[int, dict[str, Any]] = {}
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise DataError(f"{path}, line {number}: damaged, not JSON ({error})") from error
        if not isinstance(row, dict) or type(row.get("epoch")) is not int:
            complaint: str | None = "an object with a whole number 'epoch'"
        else:
            complaint = complain(row)
        if complaint is not None:
            raise DataError(f"{path}, line {number}: expected {complaint}")
        rows[row["epoch"]] = row
    return [rows[epoch] for epoch in sorted(rows)]


def read_landscape(path: Path) -> list[dict[str, Any]]:
    """The rows of landscape.jsonl, each with a grid of temperatures and losses."""

    def complain(row: dict[str, Any]) -> str | None:
        temperatures, losses = row.get("temperatures"), row.get("losses")
        fits = (
            isinstance(temperatures, list)
            and isinstance(losses, list)
            and len(temperatures) == len(losses) >= 2
            and all(is_number(value) and value > 0 for value in temperatures)
            and all(value < following for value, following in itertools.pairwise(temperatures))
        )
        wanted = "'temperatures', positive and ascending, at least two, and as many 'losses'"
        return None if fits else wanted

    return read_rows(path, complain)


def trace_text(rows: Iterable[Sequence[float]]) -> str:
    """The text of temperature.csv; a row has the values of TRACE_COLUMNS."""
    lines = [",".join([str(step), *(f"{value:.8g}" for value in rest)]) for step, *rest in rows]
    return "\n".join([",".join(TRACE_COLUMNS), *lines]) + "\n"


def read_trace(path: Path) -> dict[str, "Floats"]:
    """The columns of temperature.csv, one row per step; no columns if there is no file.

    A last line without its newline is ignored: its last number may have been cut.
    """
    import numpy as np

    lines = _text(path).split("\n")[:-1]
    rows = {row["step"]: row for row in _read_table(path, lines, TRACE_COLUMNS)}
    steps = [rows[step] for step in sorted(rows)]
    return {name: np.array([row[name] for row in steps]) for name in TRACE_COLUMNS if lines}


def columns_text(rows: Iterable[Sequence[str | float]]) -> str:
    """The text of rows.csv; a row has the values of ROW_COLUMNS.

    In a text (a token can be a line's end) a comma becomes ";", and an unprintable character its
    escape.
    """
    lines = [",".join(ROW_COLUMNS)]
    for row in rows:
        texts = [_printable(str(text)).replace(",", ";") for text in row[: len(ROW_TEXTS)]]
        lines.append(",".join([*texts, *(f"{value:.6g}" for value in row[len(ROW_TEXTS) :])]))
    return "\n".join(lines) + "\n"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def read_columns(path: Path) -> dict[str, Any]:
    """The columns of rows.csv, "group" and "target" as texts; no columns if there is no row."""
    import numpy as np

    rows = _read_table(path, _text(path).splitlines(), ROW_COLUMNS)
    return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def _text(path: Path) -> str:
    """The text of a file, "" if there is no file; bytes that are not text become "�"."""
    return path.read_bytes().decode("utf-8-sig", errors="replace") if path.is_file() else ""


def _read_table(path: Path, lines: Sequence[str], expected: Sequence[str]) -> list[dict[str, Any]]:
    """The rows below a header with the columns expected; an empty field is nan."""
    names = lines[0].strip().split(",") if lines else []
    if lines and not set(expected).issubset(names):
        raise DataError(f"{path}, line 1: expected the columns {','.join(expected)}")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        try:
            pairs = zip(names, line.split(","), strict=True)
            rows.append({k: v if k in ROW_TEXTS else float(v.strip() or "nan") for k, v in pairs})
        except ValueError as error:
            raise DataError(f"{path}, line {number}: expected {','.join(names)}") from error
    return rows


def is_number(value: object) -> bool:
    """True for a finite int or float: JSON's NaN and null count as missing."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
