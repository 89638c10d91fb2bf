"""Reads values of COCO's json as exporters write them: numbers and ids; and their errors."""

import json
import math
import pathlib
import re
from typing import Any

from ctkd.errors import DataError

Entry = dict[str, Any]
Id = int | str

INTEGER = re.compile(r"[+-]?[0-9]+")
DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LARGEST = 2**63 - 1  # the largest whole number in a tensor
SHOWN = 60  # characters of a value in a message


def number(value: object) -> int | float | None:
    """`value` as a finite number; it may be a text such as "12.5". None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        if INTEGER.fullmatch(text) and len(text) < 20:
            value = int(text)
        else:
            value = float(text) if DECIMAL.fullmatch(text) else None
    if not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an int that is too large for a float
        return None


def whole(value: object) -> int | None:
    """`value` as a whole number: 120, 120.0, "120" or "120.0". None for anything else."""
    found = number(value)
    if found is None or found != int(found) or abs(found) > LARGEST:
        return None
    return int(found)


def shown(value: object) -> str:
    """A value in the file's spelling, cut if it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def wrong(
    file: pathlib.Path, name: str, index: int, entry: Entry, key: str, expected: str
) -> DataError:
    """The error for one key of one entry: the value found, and the value expected.

    Args:
        name, index: the entry's list, and its index from 0.
    """
    where = f"{file}: {name}[{index}]"
    if key != "id" and "id" in entry:
        where += f" (id {shown(entry['id'])})"
    if key not in entry:
        return DataError(f"{where} has no {key!r}: expected {expected}")
    return DataError(f"{where}: {key} is {shown(entry[key])}, expected {expected}")


def is_id(value: object) -> bool:
    """Whether `value` can be an id: a text or a whole number, but not true or null."""
    return isinstance(value, str) or whole(value) is not None


def read_ids(file: pathlib.Path, name: str, entries: list[Entry]) -> list[Id]:
    """The ids of the list `name`: all of them whole numbers, or all of them texts.

    Texts stay texts, so that results can be matched with the user's file. 7.0 becomes 7.

    Raises:
        DataError: an id is missing, has another type than the first, or occurs twice.
    """
    texts = isinstance(entries[0].get("id"), str) if entries else False
    indices: dict[Id, int] = {}
    for index, entry in enumerate(entries):
        value = entry.get("id")
        if not is_id(value):
            raise wrong(file, name, index, entry, "id", "a whole number or a text")
        if isinstance(value, str) is not texts:
            kind = "a text, as" if texts else "a whole number, as"
            expected = f"{kind} the id of {name}[0] ({shown(entries[0]['id'])})"
            raise wrong(file, name, index, entry, "id", expected)
        found = referred(value, texts)
        assert found is not None
        if found in indices:
            raise DataError(
                f"{file}: {name}[{indices[found]}] and {name}[{index}] both have the id "
                f"{shown(found)}: every entry needs a different id"
            )
        indices[found] = index
    return list(indices)


def referred(value: object, texts: bool) -> Id | None:
    """A reference to an id, in the type of the listed ids; None if it is not an id.

    So "7" matches a listed 7, and 7 matches a listed "7".
    """
    if isinstance(value, str) and texts:
        return value
    found = whole(value)
    return str(found) if texts and found is not None else found
