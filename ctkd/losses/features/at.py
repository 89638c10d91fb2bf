"""AT: attention maps, which show where the features of a stage are large."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ctkd.losses.features.feature_loss import FeatureLoss, Features, StepRows
from ctkd.losses.features.same_size import same_size
from ctkd.registry import FEATURES


def at_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of (q_s − q_t)², q the mean over channels of the squared map, of norm 1 per sample."""
    q_s, q_t = (F.normalize(f.square().mean(1).flatten(1)) for f in same_size(student, teacher))
    return (q_s - q_t).square().mean()


@FEATURES.register
class AT(FeatureLoss):
    """Attention transfer (Zagoruyko and Komodakis, ICLR 2017), summed over all stages."""

    def __init__(self, weight: float = 1000.0, at: Sequence[str] = ("stages",)) -> None:
        super().__init__(weight, at)

    def forward(self, student: Features, teacher: Features, rows: StepRows) -> Tensor:
        """See `FeatureLoss`."""
        return torch.stack([at_loss(s, t) for s, t in self.pairs(student, teacher)]).sum()
