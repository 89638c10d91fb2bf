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
        "T is constant",
        "T is {} and does not change with its parameters",
        _STUCK,
        "start T inside of its range, where a sigmoid or a clamp has a slope, and compute it from "
        "`parameters`",
    ),
    CtkdFault(
        "no gradient",
        "no gradient reaches {} parameters that T depends on",
        "what gets no gradient keeps its first value for the whole run",
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
        "teacher detached",
        "the T of the teacher's softmax is outside of the graph",
        "T feels a part of the derivative only, which often has the other sign",
        "divide both logits by the same T, with its gradient: detach the teacher's logits, not T",
    ),
    CtkdFault(
        "student detached",
        "the T of the student's softmax is outside of the graph",
        "T feels a part of the derivative only, and settles elsewhere",
        "divide both logits by the same T, with its gradient",
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
        "mean before T²",
        "KL is averaged over the rows before it is multiplied by the mean of T²",
        "the T of a sample has nothing to do with its own KL, and runs to a bound",
        "multiply each row's KL [N] by its own T² [N], and then take the mean; [N] times [N, 1] "
        "is [N, N]",
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
        "the loss is not ce_weight · CE + kd_weight · T² KL(teacher ‖ student): it is {}",
        "T maximizes another loss than the paper's",
        "compare both terms, their weights, the direction of KL and the T of both softmaxes with "
        "`ctkd.losses.kd.kd_loss`",
    ),
    CtkdFault(
        "λ in the loss",
        "the loss depends on λ: at λ = 0.25 it is {} times the loss at λ = 1",
        "the student trains on another loss while λ rises, and λ counts twice for T",
        "keep the forward pass of the reversal the identity: λ belongs to its backward pass alone",
    ),
    CtkdFault(
        "wrong gradient",
        "the gradient of T's parameters is {} times −λ times the derivative of the loss",
        "T moves at another speed, or to another value, than the T that maximizes the loss",
        "look for a part of the graph that is detached, or a factor that is applied twice",
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
        "λ strength",
        "at λ = 0 and 0.25 the step of T is {} of its step at λ = 1",
        "T is pulled with another strength than the schedule's",
        "multiply the gradient of T by −λ once, with the λ of the current step",
    ),
    CtkdFault(
        "λ hidden",
        "λ is in the gradient of T, and the optimizer's step hardly has it: its sizes are {}",
        "λ has no effect: T moves at full speed from the first step",
        "train T with SGD, as published: Adam and Lion divide by the size of the gradient",
    ),
    CtkdFault(
        "weight decay",
        "a step without a gradient moves the parameters of T by {}",
        "weight decay pulls T to the middle of its range, independent of the loss",
        "give T's parameters a group of their own with weight_decay = 0",
    ),
    CtkdFault(
        "not finite",
        "the loss or a gradient is not finite for {}",
        "T becomes NaN, and then the student",
        "form KL from two log_softmax, with log_target=True in F.kl_div, and do not mask logits "
        "with large numbers",
    ),
    CtkdFault(
        "T is not bounded",
        "T is {} when its parameters are −30: nothing keeps it above 0",
        "T may cross 0, where the loss is not finite; below 0 both softmaxes are turned around",
        "compute T = τ_init + τ_range · sigmoid(raw), or clamp T where it is computed",
    ),
    CtkdFault(
        "padding counts",
        "rows with ignore_index change the loss, by {} of its value",
        "T follows rows that mean nothing, or the mean is divided by too many rows",
        "drop these rows from every term before the mean",
    ),
)
FAULTS = {fault.name: fault for fault in _ALL}
