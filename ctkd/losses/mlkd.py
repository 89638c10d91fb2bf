"""MLKD: rows, classes and the batch compared at five temperatures, on two views of each image."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ctkd.checks import expect, finite
from ctkd.losses.kd import kd_rows
from ctkd.losses.objectives import Terms
from ctkd.losses.two_views import TwoViewObjective, View
from ctkd.registry import OBJECTIVES

SWAPPED = 2  # the number of last temperatures that see the wrong view in the published form


@OBJECTIVES.register
class MLKD(TwoViewObjective):
    """ce_weight · (CE_w + CE_g) + kd_weight · (kd_plain + kd_strong + class + batch).

    Jin et al., "Multi-Level Logit Distillation", CVPR 2023. With w the plain view, g the strong
    view, P(τ) the softmax [N, C] at temperature τ, and each sum over the temperatures τ:

        kd_plain  = mean over the rows of Σ τ² KL_w · (row among the less sure half)
        kd_strong = Σ τ² KL_g, of each row
        class     = Σ Σ over the rarer half of classes i, all j, of (P_tᵀP_t − P_sᵀP_s)²_ij / C
        batch     = Σ Σ over the less sure half of rows i, all j, of (P_tP_tᵀ − P_sP_sᵀ)²_ij / N

    Class and batch are those of the plain view. A row is less sure if the teacher's largest
    probability is at most the median of the batch; a class is rare if the teacher's mass of it is.
    Both are taken at T = 1 before any transform. All but the KD terms are on the logits before the
    transform, as in the public code of Logit Standardization. Terms that compare rows are 0-d and
    need all rows of a step (`whole_step`).

    The temperatures are `ratios` · T, where T is the policy's: at T = 4 they are the published 4,
    3, 5, 2 and 6. A learned T scales the whole set; one number is learned, as in CTKD.

    `as_published` computes what the public code does, where its slips are: (1) the halves are
    multiplied with terms that are one number already, so that they only scale them by their share,
    about 0.5; (2) the last two temperatures (2 and 6) of kd_strong take the plain view's logits.
    The published numbers were made in this way. The default is the form above.
    """

    whole_step: ClassVar[bool] = True
    raw_terms: ClassVar[tuple[str, ...]] = ("ce", "class", "batch")

    def __init__(
        self,
        ce_weight: float = 0.1,
        kd_weight: float = 0.9,
        class_weight: float = 0.9,
        batch_weight: float = 0.9,
        ratios: Sequence[float] = (1.0, 0.75, 1.25, 0.5, 1.5),
        as_published: bool = False,
    ) -> None:
        self.check(kd_weight=kd_weight, class_weight=class_weight, batch_weight=batch_weight)
        weights = {"kd_plain": kd_weight, "kd_strong": kd_weight}
        weights |= {"class": class_weight, "batch": batch_weight}
        super().__init__(ce_weight, **weights)
        fine = len(ratios) > SWAPPED and all(finite(r) and r > 0 for r in ratios)
        expected = f"more than {SWAPPED} numbers > 0, each a multiple of T"
        expect(fine, type(self).__name__, "ratios", ratios, expected)
        self.ratios, self.as_published = tuple(ratios), as_published

    def terms_of_views(self, plain: View, strong: View, temperature: float | Tensor) -> Terms:
        """{"kd_plain" 0-d, "kd_strong" [N], "class" 0-d, "batch" 0-d}, τ² included."""
        heats = [ratio * temperature for ratio in self.ratios]
        unsure = lower_half(plain.confidence)
        rare = lower_half(plain.probabilities.sum(dim=0))
        views = [strong] * len(heats)
        if self.as_published:
            unsure, rare = (half.mean().expand_as(half) for half in (unsure, rare))
            views[-SWAPPED:] = [plain] * SWAPPED
        kd_plain = [kd_rows(plain.student, plain.teacher, heat) for heat in heats]
        kd_strong = [
            kd_rows(view.student, view.teacher, heat)
            for view, heat in zip(views, heats, strict=True)
        ]
        raw = plain.raw_student, plain.raw_teacher
        soft = [[(logits / heat).softmax(dim=1) for logits in raw] for heat in heats]
        classes = [_gap(q.T, p.T) for q, p in soft]
        batches = [_gap(q, p) for q, p in soft]
        return {
            "kd_plain": (sum_of(kd_plain) * unsure).mean(),
            "kd_strong": sum_of(kd_strong),
            "class": (sum_of(classes) * rare).mean(),
            "batch": (sum_of(batches) * unsure).mean(),
        }


def lower_half(values: Tensor) -> Tensor:
    """1.0 for the values that are at most the median, else 0.0, [N]."""
    ordered, count = values.sort().values, len(values)
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return (values <= median).to(values.dtype)


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Their sum, of the same shape."""
    return torch.stack(list(tensors)).sum(dim=0)


def _gap(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_j (T Tᵀ − S Sᵀ)²_ij for each row i, [rows]."""
    return (teacher @ teacher.T - student @ student.T).square().sum(dim=1)
