"""ReviewKD: each stage of the teacher teaches the same and all later stages of the student."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctkd.losses.features.feature_loss import FeatureLoss, Features, StepRows
from ctkd.losses.features.same_size import pooled_to
from ctkd.registry import FEATURES

WIDEST = 512
LEVELS = (4, 2, 1)  # sizes to which maps are pooled


def hcl_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared errors of the maps at full size and pooled to 4, 2, 1, weighted 1, ½, ¼, ⅛.

    Sizes that are not smaller than the map are left out; the weights are divided by their sum.
    """
    sizes = [size for size in LEVELS if size < student.shape[-1]]
    losses, weights = [F.mse_loss(student, teacher)], [1.0]
    for size in sizes:
        s, t = (pooled_to(f, size) for f in (student, teacher))
        losses.append(F.mse_loss(s, t))
        weights.append(weights[-1] / 2)
    total = [weight * loss for weight, loss in zip(weights, losses, strict=True)]
    return torch.stack(total).sum() / sum(weights)


class Fusion(nn.Module):
    """Attention-based fusion: mixes a stage of the student with the map of the later stages.

    The stage is projected to `middle` channels; two maps in (0, 1) weight it and the enlarged map.
    """

    def __init__(self, inputs: int, middle: int, outputs: int, mixes: bool) -> None:
        super().__init__()
        first = nn.Conv2d(inputs, middle, 1, bias=False)
        last = nn.Conv2d(middle, outputs, 3, padding=1, bias=False)
        for convolution in (first, last):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
        self.project = nn.Sequential(first, nn.BatchNorm2d(middle))
        self.finish = nn.Sequential(last, nn.BatchNorm2d(outputs))
        self.weigh = nn.Conv2d(2 * middle, 2, 1) if mixes else None

    def forward(self, stage: Tensor, rest: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        """(the map to compare with the teacher's, of `size`; the mixed map for the next stage)."""
        mixed: Tensor = self.project(stage)
        if self.weigh is not None and rest is not None:
            rest = F.interpolate(rest, mixed.shape[-2:], mode="nearest")
            shares = torch.sigmoid(self.weigh(torch.cat([mixed, rest], 1)))
            mixed = mixed * shares[:, :1] + rest * shares[:, 1:]
        if mixed.shape[-1] != size:
            mixed = F.interpolate(mixed, size, mode="nearest")
        return self.finish(mixed), mixed


@FEATURES.register
class ReviewKD(FeatureLoss):
    """Knowledge review (Chen et al., CVPR 2021): Σ over the stages of `hcl_loss`.

    The student's pooled features, then its stages from the last to the first, are fused one after
    another; each result is compared with the teacher's, whose stages are taken before the
    activation (the features `before1`, `before2`, …). The weight rises during the first epochs.
    """

    def __init__(
        self,
        weight: float = 1.0,
        at: Sequence[str] = ("stages", "pooled"),
        warmup_epochs: float = 20.0,
    ) -> None:
        super().__init__(weight, at, warmup_epochs)
        self.fusions = nn.ModuleList()

    def of_teacher(self, name: str) -> str:
        """See `FeatureLoss`: a stage before its activation."""
        return name.replace("stage", "before")

    def build(self, student: Features, teacher: Features) -> None:
        """See `FeatureLoss`."""
        pairs = self._maps(student, teacher)
        middle = min(WIDEST, pairs[0][0].shape[1])
        for k, (s, t) in enumerate(pairs):
            self.fusions.append(Fusion(s.shape[1], middle, t.shape[1], mixes=k > 0))

    def _maps(self, student: Features, teacher: Features) -> list[tuple[Tensor, Tensor]]:
        """The maps of both, the last first; pooled features are maps of one pixel."""
        return [(_as_map(s), _as_map(t)) for s, t in self.pairs(student, teacher)[::-1]]

    def forward(self, student: Features, teacher: Features, rows: StepRows) -> Tensor:
        """See `FeatureLoss`."""
        losses, rest = [], None
        for fuse, (s, t) in zip(self.fusions, self._maps(student, teacher), strict=True):
            out, rest = fuse(s, rest, t.shape[-1])
            losses.append(hcl_loss(out, t))
        return torch.stack(losses).sum()


def _as_map(feature: Tensor) -> Tensor:
    return feature[:, :, None, None] if feature.dim() == 2 else feature
