"""Groups and weights of a detector's rows, as functions of tensors (no Gin).

A sampled proposal is a row of class logits; column 0 is the background. At least three quarters of
the rows are background, so means over all rows say little about the objects.
"""

import torch
from torch import Tensor

GROUPS = ("background", "foreground")


def row_groups(targets: Tensor) -> Tensor:
    """Classes [N] -> the indices [N] of their groups in `GROUPS`: class 0 is the background."""
    return (targets > 0).long()


def row_weights(targets: Tensor, background: float = 1.0) -> Tensor:
    """The weight of each row in the loss, [N]: 1 for objects, `background` for the background.

    The mean is still over all rows: 1.0 gives the plain loss, and 0.0 the objects' part of it.
    """
    weights = torch.ones(targets.shape, device=targets.device)
    return weights.masked_fill(targets == 0, background)
