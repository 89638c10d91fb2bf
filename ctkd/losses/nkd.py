"""Normalized knowledge distillation: cross-entropies of the true class and of the others."""

from torch import Tensor

from ctkd.losses.dkd import split_target
from ctkd.losses.objectives import Objective, Terms
from ctkd.losses.per_row import cross_entropy_rows
from ctkd.registry import OBJECTIVES


def nkd_rows(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """The two terms of each row, [N] each; student and teacher as `prepare_rows` returns them.

    target     −p_y log q_y, p and q the softmaxes at T = 1, y the true class
    nontarget  −T² Σ p̂ log q̂, p̂ and q̂ the softmaxes of the other classes' logits at T
    """
    index = targets.long().unsqueeze(1)
    own = teacher.softmax(dim=1).gather(1, index).squeeze(1) * cross_entropy_rows(student, targets)
    _, student_others = split_target(student / temperature, index)
    _, teacher_others = split_target(teacher / temperature, index)
    log_q, p = student_others.log_softmax(dim=1), teacher_others.softmax(dim=1)
    others = -(p * log_q).sum(dim=1, keepdim=True) * temperature * temperature
    return own, others.squeeze(1)


@OBJECTIVES.register
class NKD(Objective):
    """ce_weight · CE + nkd_weight · (target + gamma · nontarget), see `nkd_rows`.

    Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation", ICCV 2023 (arXiv
    2303.13005). Published: CE 1; gamma = 1.5 and T = 1 on ImageNet; gamma = 3.5 and T = 3 on
    CIFAR-100, for ResNet-34 -> ResNet-18.

    The nontarget term is a cross-entropy, so it holds T² times the entropy of p̂, which grows
    without bound with T: L(T) has no maximum, and a learned T rises to its upper bound.
    """

    needs_class = True

    def __init__(self, ce_weight: float = 1.0, nkd_weight: float = 1.0, gamma: float = 1.5) -> None:
        self.check(nkd_weight=nkd_weight, gamma=gamma)
        super().__init__(ce_weight, target=nkd_weight, nontarget=nkd_weight * gamma)

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"target", "nontarget"}, each [N], T² included."""
        target, nontarget = nkd_rows(student, teacher, targets, temperature)
        return {"target": target, "nontarget": nontarget}

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes one class is left without the true one."""
        if num_classes != 2:
            return []
        return [
            f"{type(self).__name__} with 2 classes: the nontarget term is exactly 0, because one "
            "class is left without the true one, so gamma and T have no effect. Use "
            "Method.objective = @KD"
        ]
