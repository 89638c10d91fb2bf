"""Reads runs from runs.csv, the table of summaries in a sweep's report: one row per run.

The table can be kept with a study's text, and compared again without the work directories. Tables
of several machines can be compared together.
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
from ctkd.results.read.schema import RunSettings, RunSummary

REQUIRED = ("cell", "seed", "state")  # in every row
OF_FINISHED = ("student", "dataset", "epochs")  # in the row of a finished run
RECIPE = {  # the part of the recipe in such a table; only runs with an equal part are compared
    "Recipe.epochs": "epochs",
    "Recipe.dataset": "dataset",
    "steps": "steps",
    "Teacher.fingerprint": "teacher_fingerprint",
}
NOTE = (
    f"These runs come from a table, which has only {', '.join(RECIPE.values())} of their recipes: "
    "no other setting was compared."
)


def read_summaries(path: str | os.PathLike[str]) -> list[RunRecord]:
    """The runs of a runs.csv, each with only its summary.

    The name of a run is the name in its summary; in a table without the
    column "name", it is the name of the cell.

    Raises:
        DataError: the file is missing, has other columns, or has a damaged line.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        if not set(REQUIRED).issubset(reader.fieldnames or ()):
            raise DataError(
                f"{path}: expected the columns {', '.join(REQUIRED)}, as in the runs.csv that "
                "`ctkd report` writes for a sweep"
            )
        return [_record(f"{path}:{reader.line_num}", row) for row in reader]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (NotUTF8Error, csv.Error) as error:
        raise DataError(f"{path}: damaged, not comma-separated text in UTF-8 ({error})") from error


def _record(where: str, row: dict[str, Any]) -> RunRecord:
    """The run of one row; `where` is its file and line."""
    if None in row or None in row.values():
        raise DataError(f"{where}: it has more or fewer fields than line 1 has columns")
    values = {key: _value(text) for key, text in row.items() if text != ""}
    if not isinstance(values.get("seed"), int) or "cell" not in values:
        raise DataError(f"{where}: expected a name under cell, and a whole number under seed")
    finished = values.get("state") == "finished"
    lacking = [key for key in OF_FINISHED if finished and key not in values]
    if lacking:
        raise DataError(f"{where}: a finished run's row needs a value under {', '.join(lacking)}")
    name = str(values.get("name", values["cell"]))
    recipe = {key: values[column] for key, column in RECIPE.items() if column in values}
    return RunRecord(
        path=Path(where),
        name=name,
        settings=RunSettings(name, recipe=recipe, seed={"Seed.seed": values["seed"]}),
        summary=RunSummary.from_json(values | {"finished": True}) if finished else None,
    )


def _value(text: str) -> int | float | str:
    """The text as a finite number, or the text itself if it is none."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    return text
