"""DIST: correlations between the networks' predictions, within a row and within a class."""

from typing import ClassVar

import torch
from torch import Tensor

from ctkd.losses.objectives import Objective, Terms
from ctkd.registry import OBJECTIVES


def pearson(x: Tensor, y: Tensor, dim: int, epsilon: float = 1e-8) -> Tensor:
    """Σ (x − x̄)(y − ȳ) / (‖x − x̄‖ ‖y − ȳ‖ + epsilon) along `dim`, which is removed.

    Invariant to x -> a x + b with a > 0, up to epsilon (the public code's value). Values that are
    constant along `dim`, up to rounding, have correlation 0, with gradient 0.
    """
    (x, x_norm, x_varies), (y, y_norm, y_varies) = (_centered(values, dim) for values in (x, y))
    correlation = (x * y).sum(dim=dim) / (x_norm * y_norm + epsilon)
    # The derivative in constant values is that of the other ones over epsilon: 1e8 times too large.
    return torch.where(x_varies & y_varies, correlation, 0.0)


def _centered(values: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """The values without their mean, their norm, and whether it is more than rounding."""
    centered = values - values.mean(dim=dim, keepdim=True)
    norm = centered.norm(dim=dim)
    # "Not at most": so that NaN stays NaN.
    varies = ~(norm <= 4 * torch.finfo(values.dtype).eps * values.norm(dim=dim))
    return centered, norm, varies


@OBJECTIVES.register
class DIST(Objective):
    """ce_weight · CE + inter_weight · τ² (1 − ρ_row) + intra_weight · τ² (1 − mean of ρ_class).

    Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022 (arXiv 2205.10536).
    ρ is Pearson's correlation of the probabilities softmax(z_s / τ) and softmax(z_t / τ): over the
    classes of one row ("inter", between classes), and over the rows of one class ("intra"). The
    student learns the order and the spacing of the teacher's predictions, not their values. The
    factor τ² is in the authors' code. Published: CE 1, both weights 2; τ = 4 on CIFAR-100 and 1 on
    ImageNet.

    "intra" is not row-wise: it is 0-d, a mean over the classes of correlations over the given rows.
    It needs all rows of a step (`whole_step`): ranks exchange their rows, and accumulated parts are
    refused. A single row has no correlation: its "intra" is the constant τ².

    `temperature` is τ (4 on CIFAR-100); if it differs by row, "intra" has the mean of τ². A learned
    policy has no T* between its bounds: as τ grows, ρ approaches the correlation of the logits, so
    τ² (1 − ρ) grows without bound, and a learned τ rises to its upper bound.
    """

    whole_step: ClassVar[bool] = True

    def __init__(
        self, ce_weight: float = 1.0, inter_weight: float = 2.0, intra_weight: float = 2.0
    ) -> None:
        super().__init__(ce_weight, inter=inter_weight, intra=intra_weight)

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"inter" [N], "intra" 0-d}, τ² included."""
        q, p = (student / temperature).softmax(dim=1), (teacher / temperature).softmax(dim=1)
        square = temperature * temperature
        by_row = square.flatten() if isinstance(square, Tensor) else square
        by_batch = square.mean() if isinstance(square, Tensor) else square
        return {
            "inter": by_row * (1.0 - pearson(q, p, dim=1)),
            "intra": by_batch * (1.0 - pearson(q, p, dim=0).mean()),
        }

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes the correlation over the classes is always 1 or −1."""
        weight = self.weights(0.0)["inter"]
        if num_classes != 2 or not weight:
            return []
        return [
            f"{type(self).__name__} with 2 classes: the correlation of two probabilities is always "
            f"1 or −1, so the inter-class term (inter_weight = {weight:g}) has almost no gradient, "
            "and only the intra-class term is left. Use Method.objective = @KD, or "
            "DIST.inter_weight = 0"
        ]
