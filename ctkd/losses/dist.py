"""DIST: correlations between the networks' predictions, within a row and within a class."""

from torch import Tensor

from ctkd.losses.few_classes import SOFTMAX_CLASSES
from ctkd.losses.objectives import check_weights, teacher_given
from ctkd.losses.per_row import cross_entropy_rows, prepare_rows
from ctkd.registry import OBJECTIVES


def pearson(x: Tensor, y: Tensor, dim: int, epsilon: float = 1e-8) -> Tensor:
    """Σ (x − x̄)(y − ȳ) / (‖x − x̄‖ ‖y − ȳ‖ + epsilon) along `dim`, which vanishes.

    Invariant to x -> a x + b with a > 0, up to epsilon, the public code's. Values that do not vary
    along `dim` count as uncorrelated, with gradient 0.
    """
    x, y = (values - values.mean(dim=dim, keepdim=True) for values in (x, y))
    norms: Tensor = x.norm(dim=dim) * y.norm(dim=dim)
    return (x * y).sum(dim=dim) / (norms + epsilon)


@OBJECTIVES.register
class DIST:
    """ce_weight · CE + inter_weight · τ² (1 − ρ_row) + intra_weight · τ² (1 − mean of ρ_class).

    Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022 (arXiv 2205.10536).
    ρ is Pearson's correlation of the probabilities softmax(z_s / τ) and softmax(z_t / τ): over the
    classes of one row ("inter", between classes), and over the rows of one class ("intra"). The
    student need only order and space its predictions as the teacher does, not equal them. The
    factor τ² is the authors' code's.

    "intra" is not row-wise: it is 0-d, a mean over the classes of correlations over the rows that
    the call is given. It depends on how a step is divided: accumulated parts, and the ranks of a
    distributed run, each correlate their own rows. One row alone has no correlation: its "intra"
    is the constant τ².

    `temperature` is τ (4 on CIFAR-100); where it differs by row, "intra" has the mean of τ². For a
    learned policy there is no T*: as τ grows ρ tends to the correlation of the logits, so that
    τ² (1 − ρ) grows without bound, and a learned τ rises to its upper bound.

    Raises:
        ConfigError: a weight that is not a finite number >= 0.
        ValueError (when called): no teacher, or shapes that do not fit.
    """

    needs_teacher = True
    min_classes = SOFTMAX_CLASSES

    def __init__(
        self, ce_weight: float = 1.0, inter_weight: float = 2.0, intra_weight: float = 2.0
    ) -> None:
        owner = type(self).__name__
        check_weights(owner, ce_weight=ce_weight)
        check_weights(owner, inter_weight=inter_weight, intra_weight=intra_weight)
        self.ce_weight = ce_weight
        self.inter_weight = inter_weight
        self.intra_weight = intra_weight

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        temperature: float | Tensor | None,
        raw_student_logits: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{"ce" [N], "inter" [N], "intra" 0-d}, τ² inside the last two."""
        teacher_logits, temperature = teacher_given(self, teacher_logits, temperature)
        raw = student_logits if raw_student_logits is None else raw_student_logits
        student, teacher, tau = prepare_rows(student_logits, teacher_logits, temperature)
        q, p = (student / tau).softmax(dim=1), (teacher / tau).softmax(dim=1)
        square = tau * tau
        by_row = square.flatten() if isinstance(square, Tensor) else square
        by_batch = square.mean() if isinstance(square, Tensor) else square
        return {
            "ce": cross_entropy_rows(raw, targets),
            "inter": by_row * (1.0 - pearson(q, p, dim=1)),
            "intra": by_batch * (1.0 - pearson(q, p, dim=0).mean()),
        }

    def weights(self, position: float) -> dict[str, float]:
        """Constant."""
        return {"ce": self.ce_weight, "inter": self.inter_weight, "intra": self.intra_weight}

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes the correlation over the classes is always 1 or −1."""
        if num_classes != 2 or not self.inter_weight:
            return []
        return [
            f"{type(self).__name__} with 2 classes: the correlation of two probabilities is always "
            f"1 or −1, so the inter-class term (inter_weight = {self.inter_weight:g}) has almost "
            "no gradient, and only the intra-class term is left. Use Method.objective = @KD, or "
            "DIST.inter_weight = 0"
        ]
