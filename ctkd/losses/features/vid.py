"""VID: the likelihood of the teacher's maps, given the student's."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctkd.losses.features.feature_loss import FeatureLoss, Features, StepRows
from ctkd.losses.features.same_size import same_size
from ctkd.registry import FEATURES

SMALLEST_VARIANCE, FIRST_VARIANCE = 1e-5, 5.0


class GaussianRegressor(nn.Module):
    """A mean μ from the student's map, and a learned variance σ² of each of the teacher's channels.

    Three 1x1 convolutions without bias, with ReLU between them, compute μ.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = (inputs, outputs, outputs, outputs)
        first, second, third = (
            nn.Conv2d(a, b, 1, bias=False) for a, b in itertools.pairwise(widths)
        )
        self.mean = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        raw = math.log(math.exp(FIRST_VARIANCE - SMALLEST_VARIANCE) - 1)
        self.log_scale = nn.Parameter(torch.full((outputs,), raw))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean of ½ ((μ − t)² / σ² + log σ²): the negative log-likelihood without a constant."""
        student, teacher = same_size(student, teacher)
        variance = (F.softplus(self.log_scale) + SMALLEST_VARIANCE).view(1, -1, 1, 1)
        error = (self.mean(student) - teacher).square()
        loss: Tensor = (error / variance + variance.log()).mean() / 2
        return loss


@FEATURES.register
class VID(FeatureLoss):
    """Variational Information Distillation (Ahn et al., CVPR 2019), summed over all stages."""

    def __init__(self, weight: float = 1.0, at: Sequence[str] = ("stages",)) -> None:
        super().__init__(weight, at)
        self.regressors = nn.ModuleList()

    def build(self, student: Features, teacher: Features) -> None:
        """See `FeatureLoss`."""
        for s, t in self.pairs(student, teacher):
            self.regressors.append(GaussianRegressor(s.shape[1], t.shape[1]))

    def forward(self, student: Features, teacher: Features, rows: StepRows) -> Tensor:
        """See `FeatureLoss`."""
        pairs = zip(self.regressors, self.pairs(student, teacher), strict=True)
        return torch.stack([regress(s, t) for regress, (s, t) in pairs]).sum()
