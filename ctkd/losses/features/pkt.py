"""PKT: similarities between the samples of a batch, as conditional probabilities."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ctkd.losses.features.feature_loss import FeatureLoss, Features, StepRows
from ctkd.registry import FEATURES

EPSILON = 1e-7  # the public code's, in all three terms


def pkt_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over i, j of P_ij · log(P_ij / Q_ij), P the teacher's and Q the student's similarities.

    P_ij = c_ij / Σ_j c_ij, with c = (1 + cosine(f_i, f_j)) / 2 over the rows f of [N, D].
    """
    q, p = _similarities(student), _similarities(teacher)
    return (p * torch.log((p + EPSILON) / (q + EPSILON))).mean()


def _similarities(rows: Tensor) -> Tensor:
    # The norm of a row of zeros has the gradient NaN: such a row gets the cosine 0 with all rows.
    norms = rows.square().sum(1, keepdim=True)
    rows = rows / (torch.where(norms > 0, norms, 1.0).sqrt() + EPSILON)
    cosines = (rows @ rows.T + 1) / 2
    return cosines / cosines.sum(1, keepdim=True)


@FEATURES.register
class PKT(FeatureLoss):
    """Probabilistic Knowledge Transfer (Passalis and Tefas, ECCV 2018), on the pooled features.

    It has no parameters, and compares the samples of a step: `Runtime.accumulate` changes it.
    """

    compares_rows: ClassVar = True

    def __init__(self, weight: float = 30000.0, at: Sequence[str] = ("pooled",)) -> None:
        super().__init__(weight, at)

    def forward(self, student: Features, teacher: Features, rows: StepRows) -> Tensor:
        """See `FeatureLoss`."""
        pairs = self.pairs(student, teacher)
        return torch.stack([pkt_loss(s.flatten(1), t.flatten(1)) for s, t in pairs]).sum()
