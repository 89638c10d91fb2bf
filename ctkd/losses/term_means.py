"""Means of named loss terms over the rows of a step (no Gin)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ctkd.losses.per_row import check_each_row


def check_total(rows: int, total: int | None) -> int:
    """The rows of the whole step, by default these. Raises ValueError for fewer, or for none."""
    if rows == 0 and not total:
        raise ValueError("the step has no row: leave out a batch in which no row counts")
    if total is not None and not total >= rows:
        raise ValueError(
            f"total_rows = {total} for a part of {rows} rows: expected the number of rows of the "
            "whole step"
        )
    return rows if total is None else total


def check_scalar(name: str, value: object, terms: Mapping[str, Tensor]) -> None:
    """Raises ValueError for a loss next to the terms that is no scalar, or has a term's name."""
    if not isinstance(value, Tensor) or value.dim():
        came = list(value.shape) if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"other_losses[{name!r}] is {came}: expected a 0-d tensor")
    if name in terms:
        raise ValueError(f"other_losses has the name of a term, {name!r}: choose another name")


def weigh(terms: dict[str, Tensor], row_weights: Tensor | None) -> dict[str, Tensor]:
    """The terms with each row multiplied by its weight; 0-d terms unchanged.

    Raises:
        ValueError: there is not one weight for each row.
    """
    if row_weights is None:
        return terms
    check_each_row("row_weights", row_weights, terms)
    return {k: term * row_weights if term.dim() else term for k, term in terms.items()}


def means_of(
    terms: dict[str, Tensor], rows: int, total: int, row_weights: Tensor | None = None
) -> dict[str, Tensor]:
    """The terms of `rows` rows, each divided by the `total` rows of the step: name -> 0-d.

    A 0-d term is a mean over the given rows: it counts by their share of the total. Raises
    ValueError as `weigh` does.
    """
    share, terms = rows / total, weigh(terms, row_weights)
    return {k: term * share if term.dim() == 0 else term.sum() / total for k, term in terms.items()}


def temperatures_of_rows(temperature: Any, rows: int) -> dict[str, Tensor]:
    """Each temperature, detached, as a value of every row, name -> [rows]; empty for None."""
    if temperature is None:
        return {}
    both = temperature if isinstance(temperature, tuple) else (temperature,)
    names = ("temperature", "temperature_teacher")
    return {k: t.detach().reshape(-1).expand(rows) for k, t in zip(names, both, strict=False)}
