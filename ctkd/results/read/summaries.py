"""Runs as runs.csv tells them, the table of every run's summary that a sweep's report writes.

With it a study's numbers can lie beside what is written about them, and be compared again where
the work directories are not; those of several machines together.
"""

import csv
import io
import math
import os
from pathlib import Path
from typing import Any

from ctkd.errors import DataError
from ctkd.files import NotUTF8Error, read_text
from ctkd.results.read.runs import RunRecord

TOLD = ("cell", "seed", "state")  # every row of such a table has these
OF_FINISHED = ("student", "dataset", "epochs")  # and a finished run's, these
RECIPE = {  # what such a table tells of it; must be equal among runs that are compared
    "Recipe.epochs": "epochs",
    "Recipe.dataset": "dataset",
    "steps": "steps",
    "Teacher.fingerprint": "teacher_fingerprint",
}
NOTE = (
    "These runs are known by a table alone: that their recipes are equal was checked by "
    f"{', '.join(RECIPE.values())}, and by nothing else."
)


def read_summaries(path: str | os.PathLike[str]) -> list[RunRecord]:
    """The runs of a runs.csv, each with its summary and nothing else.

    A run has the name that its summary tells, as in its work directory; in tables without that
    column, the name of its cell.

    Raises:
        DataError: there is no such file, or it is no such table, or a line of it is damaged.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        columns = reader.fieldnames or ()
        if not set(TOLD).issubset(columns):
            raise DataError(
                f"{path}: expected the columns {', '.join(TOLD)}, as tools/report.py writes "
                "them into the runs.csv of a sweep"
            )
        return [_record(f"{path}:{reader.line_num}", row) for row in reader]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (NotUTF8Error, csv.Error) as error:
        raise DataError(f"{path}: damaged, not comma-separated text in UTF-8 ({error})") from error


def _record(place: str, row: dict[str, Any]) -> RunRecord:
    """The run of one row; `place` is its file and line."""
    if None in row or None in row.values():
        raise DataError(f"{place}: it has more or fewer fields than line 1 has columns")
    told = {key: _value(text) for key, text in row.items() if text != ""}
    if not isinstance(told.get("seed"), int) or "cell" not in told:
        raise DataError(f"{place}: expected a name under cell, and a whole number under seed")
    finished = told.get("state") == "finished"
    lacking = [key for key in OF_FINISHED if finished and key not in told]
    if lacking:
        raise DataError(f"{place}: a finished run's row needs a value under {', '.join(lacking)}")
    return RunRecord(
        path=Path(place),
        name=str(told.get("name", told["cell"])),
        settings={
            "method": {},
            "recipe": {key: told[column] for key, column in RECIPE.items() if column in told},
            "seed": {"Seed.seed": told["seed"]},
            "runtime": {},
        },
        metrics=[],
        landscape=[],
        trace={},
        summary={"teacher": None, **told, "finished": True} if finished else None,
    )


def _value(text: str) -> int | float | str:
    """A finite number where the text is one."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    return text
