"""SP: inner products between the samples of a batch, on the last maps."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ctkd.losses.features.feature_loss import FeatureLoss, Features, StepRows
from ctkd.registry import FEATURES


def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_ij (G_ij − H_ij)² / N²; G and H are f fᵀ of student and teacher, their rows of norm 1.

    The features are [N, …], flattened to f [N, D]; D may differ.
    """
    g, h = (F.normalize(f.flatten(1) @ f.flatten(1).T) for f in (student, teacher))
    return (g - h).square().mean()


@FEATURES.register
class SP(FeatureLoss):
    """Similarity-Preserving distillation (Tung and Mori, ICCV 2019), on the last stage.

    It has no parameters, and compares the samples of a step: `Runtime.accumulate` changes it.
    """

    compares_rows: ClassVar = True

    def __init__(self, weight: float = 3000.0, at: Sequence[str] = ("last",)) -> None:
        super().__init__(weight, at)

    def forward(self, student: Features, teacher: Features, rows: StepRows) -> Tensor:
        """See `FeatureLoss`."""
        return torch.stack([sp_loss(s, t) for s, t in self.pairs(student, teacher)]).sum()
