"""KD and DKD with mistakes of public code, each off by default, to measure what it costs.

None of them is meant for use. `gin/sweeps/quirks.gin` runs them.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ctkd.checks import expect
from ctkd.losses.kd import kl_rows
from ctkd.losses.objectives import DKD, KD, Terms
from ctkd.losses.two_temperatures import Temperatures
from ctkd.registry import OBJECTIVES

Square = Literal["graph", "detached", "after_mean"]
Form = Literal["exact", "masked", "masked_detached"]
MASK = 1000.0  # that public code subtracts from a logit, to remove its class


@OBJECTIVES.register
class QuirkKD(KD):
    """KD whose factor T² may be wrong: a mistake of public code, to be measured.

    The choices of `square`:

    - "graph": T² · KL, as it should be.
    - "detached": the factor has no gradient. T then feels the derivative of KL alone, and settles
      lower.
    - "after_mean": mean(KL) · mean(T²), 0-d. KL is averaged over the rows before it is multiplied,
      so that a T per sample no longer weighs its own sample.

    Raises:
        ConfigError: an unknown choice, or a weight that is not a finite number >= 0.
    """

    def __init__(
        self, ce_weight: float = 0.1, kd_weight: float = 0.9, square: Square = "graph"
    ) -> None:
        super().__init__(ce_weight, kd_weight)
        choices = get_args(Square)
        expect(square in choices, "QuirkKD", "square", square, f"one of {', '.join(choices)}")
        self.square = square

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: Temperatures
    ) -> Terms:
        """{"kd"}: [N], or 0-d with square = "after_mean"."""
        if self.square == "graph" or isinstance(temperature, tuple):
            return super().terms(student, teacher, targets, temperature)
        t = torch.as_tensor(temperature, dtype=student.dtype, device=student.device)
        kl = kl_rows(student / t, teacher / t)
        if self.square == "detached":
            return {"kd": (kl * t.detach() ** 2).squeeze(1)}
        return {"kd": kl.mean() * (t * t).mean()}


@OBJECTIVES.register
class QuirkDKD(DKD):
    """DKD whose target class may be masked by −1000, as in public code, instead of removed.

    The choices of `form`:

    - "exact": as DKD.
    - "masked": the teacher's masked softmax contains exact zeros, and the gradient of F.kl_div in
      it is NaN. A learned T becomes NaN in the first step.
    - "masked_detached": the same without a gradient through the teacher's softmax, as torch up to
      1.12 computed it. T feels only the student's half of the derivative.

    Raises:
        ConfigError: an unknown choice, or what DKD refuses.
    """

    def __init__(
        self,
        ce_weight: float = 1.0,
        dkd_weight: float = 1.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        warmup_epochs: float = 0.0,
        form: Form = "exact",
    ) -> None:
        super().__init__(ce_weight, dkd_weight, alpha, beta, warmup_epochs)
        choices = get_args(Form)
        expect(form in choices, "QuirkDKD", "form", form, f"one of {', '.join(choices)}")
        self.form = form

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"tckd", "nckd"}: each [N], T² included."""
        if self.form == "exact":
            return super().terms(student, teacher, targets, temperature)
        mask = F.one_hot(targets.long(), student.shape[1]).to(student.dtype)
        q, p = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
        square = temperature * temperature
        tckd = self._kl_div(_two_classes(q, mask).log(), _two_classes(p, mask))
        masked_q = (student / temperature - MASK * mask).log_softmax(1)
        nckd = self._kl_div(masked_q, (teacher / temperature - MASK * mask).softmax(1))
        return {"tckd": (tckd * square).squeeze(1), "nckd": (nckd * square).squeeze(1)}

    def _kl_div(self, log_q: Tensor, p: Tensor) -> Tensor:
        """F.kl_div of each row, [N, 1]."""
        p = p.detach() if self.form == "masked_detached" else p
        return F.kl_div(log_q, p, reduction="none").sum(1, keepdim=True)


def _two_classes(probabilities: Tensor, mask: Tensor) -> Tensor:
    """The probability of the target and of the rest, [N, 2]."""
    target = (probabilities * mask).sum(1, keepdim=True)
    return torch.cat([target, (probabilities * (1 - mask)).sum(1, keepdim=True)], 1)
