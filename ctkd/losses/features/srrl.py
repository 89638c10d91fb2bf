"""SRRL: the student's representation, classified by the teacher's classifier."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ctkd.errors import ConfigError
from ctkd.losses.features.feature_loss import FeatureLoss, Features, StepRows
from ctkd.registry import FEATURES


@FEATURES.register
class SRRL(FeatureLoss):
    """Mean of (r(f_s) − f_t)² plus mean of (classifier(r(f_s)) − z_t)², on the pooled features.

    Softmax Regression Representation Learning (Yang et al., ICLR 2021), as in CTKD's public code: r
    is a linear layer to the width of f_t, batch normalization and ReLU; the classifier is the
    teacher's, frozen; z_t are the teacher's logits.
    """

    needs: ClassVar = ("classifier",)

    def __init__(self, weight: float = 1.0, at: Sequence[str] = ("pooled",)) -> None:
        super().__init__(weight, at)
        self.regressor = nn.Sequential()

    def build(self, student: Features, teacher: Features) -> None:
        """See `FeatureLoss`."""
        pairs = self.pairs(student, teacher)
        if len(pairs) != 1 or any(f.dim() != 2 for f in pairs[0]):
            raise ConfigError(
                f"{self.named} takes one feature that is a vector: SRRL.at = ('pooled',)"
            )
        (s, t) = pairs[0]
        width = t.shape[1]
        linear = nn.Linear(s.shape[1], width, bias=False)
        self.regressor.extend([linear, nn.BatchNorm1d(width), nn.ReLU()])

    def forward(self, student: Features, teacher: Features, rows: StepRows) -> Tensor:
        """See `FeatureLoss`."""
        ((s, t),) = self.pairs(student, teacher)
        regressed = self.regressor(s)
        assert rows.teacher_logits is not None
        logits = self.classifier(regressed)
        return F.mse_loss(regressed, t) + F.mse_loss(logits, rows.teacher_logits)
