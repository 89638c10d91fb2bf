"""What only a detector's rows need, as functions of tensors alone (no Gin).

A sampled proposal is a row of class logits, column 0 the background's. Three quarters of the rows
or more are background, so means over all rows tell little of the objects: each group is told apart.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

GROUPS = ("background", "foreground")


def row_groups(targets: Tensor) -> Tensor:
    """Classes [N] -> the places [N] of their groups in `GROUPS`: class 0 is the background."""
    return (targets > 0).long()


def row_weights(targets: Tensor, background: float = 1.0) -> Tensor:
    """What a row counts for in the loss, [N]: 1 on objects, `background` elsewhere.

    The mean is still over all rows, so 1.0 is the plain loss and 0.0 the objects' share of it.
    """
    weights = torch.ones(targets.shape, device=targets.device)
    return weights.masked_fill(targets == 0, background)


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
