"""Means over groups of rows, as functions of tensors (no Gin)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ctkd.losses.per_row import check_each_row


def group_sums(
    values: Mapping[str, Tensor], groups: Tensor, names: Sequence[str], total: int
) -> dict[str, Tensor]:
    """Sums over the rows of each group, divided by `total`; ranks and steps can be added up.

    Args:
        values: name -> [N]; a value that is 0-d is ignored.
        groups: [N], indices into `names`.
        total: number of rows of the whole step.

    Returns:
        "name@group" -> Σ / total, and "share@group" -> the group's share of the rows; 0-d each.
        Their quotient is the mean over the group.

    Raises:
        ValueError: there is not one group for each row.
    """
    check_each_row("groups", groups, values, "the group of each row")
    sums = {}
    for index, group in enumerate(names):
        inside = groups == index
        sums[f"share@{group}"] = inside.sum() / total
        for name, rows in values.items():
            if rows.dim():
                chosen = torch.where(inside, rows.detach(), rows.new_zeros(()))
                sums[f"{name}@{group}"] = chosen.sum() / total
    return sums


def group_means(sums: Mapping[str, float]) -> dict[str, float]:
    """Means over the rows of each group, "name_group", from the mean of `group_sums` over steps.

    A group without rows has no means.
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
