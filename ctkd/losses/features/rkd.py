"""RKD: distances and angles between the samples of a batch."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ctkd.checks import expect, finite
from ctkd.losses.features.feature_loss import FeatureLoss, Features, StepRows
from ctkd.registry import FEATURES


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 of ‖f_i − f_j‖, divided by its mean over the pairs with a distance above 0."""
    d, e = (_scaled(f) for f in (student, teacher))
    return F.smooth_l1_loss(d, e)


def _scaled(rows: Tensor) -> Tensor:
    squares = (rows[:, None] - rows[None]).square().sum(2)
    apart = squares > 0
    distances = torch.where(apart, squares, 1.0).sqrt() * apart
    mean = distances.sum() / apart.sum().clamp_min(1)
    return distances / torch.where(mean > 0, mean, 1.0)


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 of the cosines of the angles at f_i between f_j and f_k, over all i, j, k."""
    c, d = (_cosines(f) for f in (student, teacher))
    return F.smooth_l1_loss(c, d)


def _cosines(rows: Tensor) -> Tensor:
    sides = F.normalize(rows[None] - rows[:, None], dim=2)
    return sides @ sides.transpose(1, 2)


@FEATURES.register
class RKD(FeatureLoss):
    """Relational knowledge distillation (Park et al., CVPR 2019), on the pooled features.

    weight · (distance_weight · distances + angle_weight · angles). It has no parameters, and
    compares the samples of a step: `Runtime.accumulate` changes it.
    """

    compares_rows: ClassVar = True

    def __init__(
        self,
        weight: float = 1.0,
        at: Sequence[str] = ("pooled",),
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
    ) -> None:
        super().__init__(weight, at)
        for name, value in {
            "distance_weight": distance_weight,
            "angle_weight": angle_weight,
        }.items():
            expect(finite(value) and value >= 0, "RKD", name, value, "a finite number >= 0")
        self.distance_weight, self.angle_weight = distance_weight, angle_weight

    def forward(self, student: Features, teacher: Features, rows: StepRows) -> Tensor:
        """See `FeatureLoss`."""
        pairs = [(s.flatten(1), t.flatten(1)) for s, t in self.pairs(student, teacher)]
        distances = torch.stack([rkd_distance(s, t) for s, t in pairs]).sum()
        angles = torch.stack([rkd_angle(s, t) for s, t in pairs]).sum()
        return self.distance_weight * distances + self.angle_weight * angles
