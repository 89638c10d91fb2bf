"""SimKD: the student takes over the teacher's classifier."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ctkd.errors import ConfigError
from ctkd.losses.features.feature_loss import FeatureLoss, Features, StepRows
from ctkd.losses.features.same_size import same_size
from ctkd.registry import FEATURES

NARROWER = 2  # the projector's inner width, as a part of the teacher's channels


@FEATURES.register
class SimKD(FeatureLoss):
    """Mean of (p(f_s) − f_t)² on the last stage (Chen et al., CVPR 2022), p a projector.

    p is a 1x1, a 3x3 and a 1x1 convolution, each with batch normalization and ReLU, from the
    student's channels to the teacher's. The student's own classifier is not used: a run evaluates
    and saves classifier(mean over the pixels of p(f_s)), the classifier being the teacher's. With
    `CrossEntropy.ce_weight = 0.0` nothing else is trained, as published.
    """

    projector: nn.Sequential

    def __init__(self, weight: float = 1.0, at: Sequence[str] = ("last",)) -> None:
        super().__init__(weight, at)
        self.projector = nn.Sequential()

    def of_teacher(self, name: str) -> str:
        """See `FeatureLoss`: the map whose mean the teacher's classifier receives."""
        return "final" if name == "last" else name

    def build(self, student: Features, teacher: Features) -> None:
        """See `FeatureLoss`."""
        pairs = self.pairs(student, teacher)
        if len(pairs) != 1 or any(f.dim() != 4 for f in pairs[0]):
            raise ConfigError(f"{self.named} takes one feature that is a map: SimKD.at = ('last',)")
        (s, t) = pairs[0]
        inner = t.shape[1] // NARROWER
        widths = (s.shape[1], inner, inner, t.shape[1])
        for inputs, outputs, kernel in zip(widths, widths[1:], (1, 3, 1), strict=False):
            convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            self.projector.extend([convolution, nn.BatchNorm2d(outputs), nn.ReLU()])

    def forward(self, student: Features, teacher: Features, rows: StepRows) -> Tensor:
        """See `FeatureLoss`."""
        ((s, t),) = self.pairs(student, teacher)
        s, t = same_size(s, t)
        return F.mse_loss(self.projector(s), t)
