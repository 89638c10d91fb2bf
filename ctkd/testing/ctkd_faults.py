"""The ways in which implementations of CTKD go wrong: each with its effect on T and its cure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CtkdFault:
    """A failed check of `check_ctkd`.

    Attributes:
        name: of the fault.
        wrong: what is wrong; `{}` becomes the measured value.
        effect: what it does to T.
        cure: how to correct it.
    """

    name: str
    wrong: str
    effect: str
    cure: str

    def with_value(self, measured: object) -> "CtkdFault":
        """The fault with what was measured."""
        return CtkdFault(self.name, self.wrong.format(measured), self.effect, self.cure)

    def __str__(self) -> str:
        return f"{self.name}: {self.wrong}. Effect: {self.effect}. Cure: {self.cure}."


_STUCK = "T keeps its first value for the whole run"
_ALL = (
    CtkdFault(
        "not in the optimizer",
        "the optimizer does not hold the parameters of T",
        _STUCK,
        "add them to the optimizer, in a group without weight decay",
    ),
    CtkdFault(
        "no gradient",
        "no gradient reaches the parameters of T",
        _STUCK,
        "keep T a tensor with its graph: no .item(), .data, detach() or no_grad()",
    ),
    CtkdFault(
        "no movement",
        "a step of the optimizer leaves the parameters of T as they were",
        _STUCK,
        "give their group a learning rate above 0, and step after backward",
    ),
    CtkdFault(
        "wrong direction",
        "T moves down the loss of a frozen student",
        "T runs to a bound and makes the loss easy instead of hard",
        "reverse the gradient once: multiply by −λ with λ >= 0, and let the optimizer descend",
    ),
    CtkdFault(
        "T² detached",
        "the factor T² is outside of the graph",
        "T settles far below the T that maximizes the loss",
        "multiply by T * T with its gradient: no .item(), no detach()",
    ),
    CtkdFault(
        "cross-entropy to the teacher",
        "the loss is the cross-entropy to the teacher, not the KL: it is {} where both agree",
        "the teacher's entropy counts too, and T runs to its upper bound",
        "subtract the teacher's entropy: T² · KL(teacher ‖ student)",
    ),
    CtkdFault(
        "no T²",
        "the loss has no factor T²",
        "T falls to its lower bound, where KL without T² is largest",
        "multiply KL by T²",
    ),
    CtkdFault(
        "divided by the classes",
        "the loss is divided by the number of classes as well as by the rows",
        "the loss is too small by that factor, and so is the step of T",
        'sum over the classes, then take the mean over the rows: reduction = "batchmean"',
    ),
    CtkdFault(
        "sum over rows",
        "the loss grows with the number of rows: twice the rows give {} times the loss",
        "the step of T depends on the batch size, and on how ranks and parts divide a batch",
        "take the mean over the rows of the whole step",
    ),
    CtkdFault(
        "wrong loss",
        "the loss is {} times ce_weight · CE + kd_weight · T² KL",
        "T maximizes another loss than the paper's",
        "compare both terms, their weights and the direction of KL with `ctkd.losses.kd.kd_loss`",
    ),
    CtkdFault(
        "wrong gradient",
        "the gradient of T's parameters is {} times what λ, kd_weight and d(T² KL)/dT give",
        "T moves at another speed, or to another value, than the T that maximizes the loss",
        "look for a detached softmax, a second reversal, or a weight that is applied twice",
    ),
    CtkdFault(
        "student disturbed",
        "the student's gradient differs from that of plain KD at the same T, by {} of its norm",
        "the student descends on a loss that the reversed gradient has changed",
        "reverse the gradient of T only, and detach the logits that a policy looks at",
    ),
    CtkdFault(
        "λ schedule",
        "λ of the first epochs is {}",
        "T is pulled too strongly at the start, or never with the full strength",
        "use λ(n) = ½ (1 + cos((1 + n/10) π)), n the epoch from 1, then 1",
    ),
    CtkdFault(
        "T moves at λ = 0",
        "a step at λ = 0 moves the parameters of T by {}",
        "weight decay pulls T to the middle of its range, independent of the loss",
        "give T's parameters a group of their own with weight_decay = 0",
    ),
    CtkdFault(
        "not finite",
        "the loss or a gradient is not finite for {}",
        "T becomes NaN, and then the student",
        "form KL from two log_softmax, and do not mask logits with large numbers",
    ),
    CtkdFault(
        "padding counts",
        "rows with ignore_index change the loss, by {} of its value",
        "T follows rows that mean nothing, or the mean is divided by too many rows",
        "drop these rows from every term before the mean",
    ),
)
FAULTS = {fault.name: fault for fault in _ALL}
