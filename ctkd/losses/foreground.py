"""What only a detector's rows need, as functions of tensors alone (no Gin).

A sampled proposal is a row of class logits, column 0 the background's. Three quarters of the rows
or more are background, so means over all rows tell little of the objects.
"""

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
