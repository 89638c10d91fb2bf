"""T* at an end of the grid of temperatures: a bound, not a maximizer.

The loss is measured on a grid. If it still rises at the last temperature, the maximizer lies
outside the grid, and T* is at least that temperature. Numbers in files stay numbers; each text
that a user reads has the sign ≥ or ≤.
"""

from collections.abc import Sequence
from typing import Literal

Bound = Literal["at least", "at most"]
NEAR = 1e-3  # relative distance from an end of the grid that counts as the end
SIGNS: dict[Bound | None, str] = {"at least": "≥", "at most": "≤", None: "="}


def bound_of(t_star: float, grid: Sequence[float]) -> Bound | None:
    """Whether T* is only a bound, since it is an end of the grid; None inside the grid."""
    if t_star >= max(grid) * (1 - NEAR):
        return "at least"
    return "at most" if t_star <= min(grid) * (1 + NEAR) else None


def bound_text(t_star: float, bound: Bound | None) -> str:
    """`3.2` of a maximizer, `≥ 40` or `≤ 0.5` of a bound."""
    text = f"{t_star:.3g}"
    return text if bound is None else f"{SIGNS[bound]} {text}"


def edge_text(t_star: float, grid: Sequence[float]) -> str:
    """`= 3.2` inside a grid, `≥ 40` or `≤ 0.5` at its ends."""
    return f"{SIGNS[bound_of(t_star, grid)]} {t_star:.3g}"
