"""The landscape by kind of row: T* and T of nouns and verbs, of sure and unsure rows, and so on."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ctkd.engine.task import Kind, Rows
from ctkd.losses.sampled import draws_of

QUARTILES = ("surest quarter", "second quarter", "third quarter", "least sure quarter")
FEWEST = 8  # rows of a group; the landscape of fewer says nothing


def with_entropy(kinds: Mapping[str, Kind], rows: Rows) -> dict[str, Kind]:
    """The kinds, and the quartile of the teacher's entropy at T = 1 among the rows.

    The teacher is frozen and the rows are fixed, so the quartiles are the same at every epoch.
    """
    parts = []
    for block in rows.blocks():
        assert block.teacher is not None
        if block.is_sampled:
            draws = draws_of(block.teacher.double())
            parts.append(draws.log_z[:, 0] - draws.means[:, 0])  # the first temperature is 1
            continue
        log_p = block.teacher.double().log_softmax(1)
        parts.append(-(log_p.exp() * log_p).sum(1))
    entropy = torch.cat(parts)
    rank = entropy.argsort().argsort()
    return {**kinds, "teacher entropy": Kind(rank * 4 // len(entropy), QUARTILES)}


def landscape_of_kinds(
    kinds: Mapping[str, Kind], losses: Tensor, grid: Sequence[float], temperatures: Tensor
) -> dict[str, Any]:
    """T* of every group of every kind, the policy's mean T there, and the rows' own T*.

    Args:
        losses: [points, N], L of each row over the grid.
        temperatures: the policy's own, [1] or [N].

    Returns:
        "kinds": kind -> group -> {rows, t_star, temperature}; "row_t_star": quartiles of the T* of
        single rows; "rows_without_maximum": the share of rows whose L is largest at the end of the
        grid.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    each = temperatures.expand(losses.shape[1])
    for kind, (groups, names) in kinds.items():
        found[kind] = {}
        for index, name in enumerate(names):
            inside = (groups == index).to(losses.device)
            if int(inside.sum()) >= FEWEST:
                found[kind][name] = {
                    "rows": int(inside.sum()),
                    "t_star": peak(grid, losses[:, inside].mean(1).tolist()),
                    "temperature": each[inside].mean().item(),
                }
    best = losses.argmax(0)
    stars = torch.tensor(grid, dtype=torch.float64, device=losses.device)[best]
    points = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64, device=losses.device)
    return {
        "kinds": found,
        "row_t_star": stars.quantile(points).tolist(),
        "rows_without_maximum": (best == len(grid) - 1).double().mean().item(),
    }


def peak(grid: Sequence[float], losses: Sequence[float]) -> float:
    """The maximizer of L over a grid that is even in log T, by a parabola through three points."""
    best = max(range(len(losses)), key=losses.__getitem__)
    if best in (0, len(losses) - 1):
        return grid[best]
    left, middle, right = losses[best - 1 : best + 2]
    curve = left - 2 * middle + right
    shift = 0.5 * (left - right) / curve if curve < 0 else 0.0
    return grid[best] * math.exp(shift * math.log(grid[best + 1] / grid[best]))
