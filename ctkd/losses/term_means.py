"""Means of named loss terms over the rows of a step (no Gin)."""

from typing import Any

from torch import Tensor


def weigh(terms: dict[str, Tensor], row_weights: Tensor | None) -> dict[str, Tensor]:
    """The terms with each row multiplied by its weight; 0-d terms unchanged."""
    if row_weights is None:
        return terms
    return {k: term * row_weights if term.dim() else term for k, term in terms.items()}


def means_of(terms: dict[str, Tensor], rows: int, total: int) -> dict[str, Tensor]:
    """The terms of `rows` rows, each divided by the `total` rows of the step: name -> 0-d.

    A 0-d term is a mean over the given rows: it counts by their share of the total.
    """
    share = rows / total
    return {k: term * share if term.dim() == 0 else term.sum() / total for k, term in terms.items()}


def temperatures_of_rows(temperature: Any, rows: int) -> dict[str, Tensor]:
    """Each temperature, detached, as a value of every row, name -> [rows]; empty for None."""
    if temperature is None:
        return {}
    both = temperature if isinstance(temperature, tuple) else (temperature,)
    names = ("temperature", "temperature_teacher")
    return {k: t.detach().reshape(-1).expand(rows) for k, t in zip(names, both, strict=False)}
