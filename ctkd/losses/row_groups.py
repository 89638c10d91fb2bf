"""Means over groups of rows, told apart, as functions of tensors alone (no Gin)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def group_sums(
    values: Mapping[str, Tensor], groups: Tensor, names: Sequence[str], total: int
) -> dict[str, Tensor]:
    """Σ of each group's rows, over the rows of the whole step; what ranks and steps add up.

    Args:
        values: name -> [N]; what is not made of rows is left out.
        groups: [N], places in `names`.
        total: rows of the whole step.

    Returns:
        "name@group" -> Σ / total, and "share@group" -> the group's share of the rows; 0-d each. The
        mean over a group is the quotient of the two.
    """
    sums = {}
    for place, group in enumerate(names):
        inside = groups == place
        sums[f"share@{group}"] = inside.sum() / total
        for name, rows in values.items():
            if rows.dim():
                chosen = torch.where(inside, rows.detach(), rows.new_zeros(()))
                sums[f"{name}@{group}"] = chosen.sum() / total
    return sums


def group_means(sums: Mapping[str, float]) -> dict[str, float]:
    """Means over the groups' rows, "name_group", from (means over steps of) `group_sums`.

    A group that had no row has no means.
    """
    means = {}
    for key, value in sums.items():
        name, _, group = key.partition("@")
        share = sums[f"share@{group}"]
        if name == "share":
            means[f"share_{group}"] = share
        elif share > 0:
            means[f"{name}_{group}"] = value / share
    return means
