"""FitNet: regresses one map of the student to the teacher's."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctkd.errors import ConfigError
from ctkd.losses.features.feature_loss import FeatureLoss, Features, StepRows
from ctkd.registry import FEATURES


@FEATURES.register
class FitNet(FeatureLoss):
    """Mean of (r(f_s) − f_t)² (Romero et al., ICLR 2015), r a regressor, on the second stage.

    r is a convolution to the teacher's channels and size, batch normalization and ReLU. All
    parameters are trained together, as in RepDistiller; the paper trains in two phases.
    """

    def __init__(self, weight: float = 100.0, at: Sequence[str] = ("stage2",)) -> None:
        super().__init__(weight, at)
        self.regressors = nn.ModuleList()

    def build(self, student: Features, teacher: Features) -> None:
        """See `FeatureLoss`."""
        for s, t in self.pairs(student, teacher):
            convolution = self._convolution(s, t)
            self.regressors.append(
                nn.Sequential(convolution, nn.BatchNorm2d(t.shape[1]), nn.ReLU())
            )

    def _convolution(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """3x3 with stride 2, transposed 4x4 with stride 2, or unpadded, by the ratio of sizes."""
        (_, inputs, size, _), (_, outputs, wanted, _) = student.shape, teacher.shape
        if size == 2 * wanted:
            return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        if 2 * size == wanted:
            return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
        if size < wanted:
            raise ConfigError(
                f"{self.named} cannot enlarge a map from {size} to {wanted} pixels: choose another "
                "feature with FitNet.at"
            )
        return nn.Conv2d(inputs, outputs, 1 + size - wanted)

    def forward(self, student: Features, teacher: Features, rows: StepRows) -> Tensor:
        """See `FeatureLoss`."""
        pairs = zip(self.regressors, self.pairs(student, teacher), strict=True)
        return torch.stack([F.mse_loss(regress(s), t) for regress, (s, t) in pairs]).sum()
