"""A learned temperature of each row from ten numbers of its logits, for any number of classes."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ctkd.checks import expect, finite
from ctkd.registry import TEMPERATURES
from ctkd.temperature.bounds import Bounds

FEATURES = 10
GAP_SCALE, SPREAD_SCALE = 5.0, 10.0  # bring gaps and deviations of logits to the order of 1


@TEMPERATURES.register
class TokenTemperature(nn.Module):
    """T_i = tau_init + tau_range · sigmoid(MLP(f_i)), f_i ten numbers of row i; see `row_features`.

    Linear(10, hidden) → ReLU → Linear(hidden, 1): 385 parameters with hidden = 32, for 10 classes
    or 150,000, where a network on the logits themselves would have millions. The numbers say how
    sure each network is and how far they are apart, not which class it is about, so T cannot
    memorize classes.

    - tau_init = 1, tau_range = 5, raw_init = ln(1/4): T starts at 2 for every row, since the last
      layer's weight starts at 0, and stays in (1, 6). On tokens L(T) can have its maximum near 2
      and a local minimum near 5: a T that starts beyond it, as at the published 15.62, climbs away
      from the maximum.

    The logits are detached: the reversed gradient must not reach the student.

    Attributes:
        learned: True: the temperature passes through a gradient reversal.
        bounds: (lower, upper) of T.

    Raises:
        ConfigError: a number out of range.
    """

    learned: ClassVar[bool] = True

    def __init__(
        self,
        hidden: int = 32,
        tau_init: float = 1.0,
        tau_range: float = 5.0,
        raw_init: float = math.log(0.25),
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        expect(hidden > 0, owner, "hidden", hidden, "a whole number > 0")
        expect(finite(raw_init), owner, "raw_init", raw_init, "a finite number")
        self._map = Bounds(tau_init, tau_range, owner)
        self.bounds: tuple[float, float] | None = (self._map.lower, self._map.upper)
        self.input, self.output = nn.Linear(FEATURES, hidden), nn.Linear(hidden, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.constant_(self.output.bias, raw_init)

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, progress: float | Tensor
    ) -> Tensor:
        """[N, C] and [N, C] -> T, [N, 1]; `progress` has no effect."""
        with torch.autocast(student_logits.device.type, enabled=False):
            dtype = self.input.weight.dtype
            features = row_features(student_logits.detach(), teacher_logits.detach()).to(dtype)
            return self._map.temperature(self.output(torch.relu(self.input(features))))


def row_features(student: Tensor, teacher: Tensor) -> Tensor:
    """[N, C] and [N, C] -> [N, 10], all at T = 1 and of the order of 1.

    Of each network: entropy / ln C, the largest probability, tanh(gap of the two largest logits /
    5), standard deviation of the logits / 10. Of both: ln(1 + KL(teacher ‖ student)), and the
    teacher's probability of the student's first choice.
    """
    dtype = torch.promote_types(student.dtype, teacher.dtype)
    student, teacher = (z.to(torch.promote_types(dtype, torch.float32)) for z in (student, teacher))
    log_sums = student.logsumexp(1), teacher.logsumexp(1)
    p = (teacher - log_sums[1][:, None]).exp_()
    own, other = mean(p, teacher), mean(p, student)
    agreed = p.gather(1, student.argmax(1, keepdim=True)).squeeze(1)
    # KL = E_p log p − E_p log q; rounding may go below 0.
    kl = ((own - log_sums[1]) - (other - log_sums[0])).clamp(min=0)
    theirs = _of_one(teacher, log_sums[1], own)
    del p  # of a large vocabulary, before the student's probabilities are allocated
    q = (student - log_sums[0][:, None]).exp_()
    ours = _of_one(student, log_sums[0], mean(q, student))
    return torch.stack([*ours, *theirs, kl.log1p(), agreed], dim=1)


def mean(p: Tensor, z: Tensor) -> Tensor:
    """Σ_c p_c z_c of each row, [N], without an array of the products."""
    return torch.bmm(p[:, None], z[:, :, None]).reshape(-1)


def _of_one(logits: Tensor, log_sum: Tensor, average: Tensor) -> list[Tensor]:
    """The four numbers of one network's rows, [N] each; `average` is E z under its softmax."""
    classes = logits.shape[1]
    entropy = (log_sum - average) / math.log(max(classes, 2))
    best = logits.topk(min(2, classes), dim=1).values
    gap = ((best[:, 0] - best[:, -1]) / GAP_SCALE).tanh()
    largest = (best[:, 0] - log_sum).exp()
    return [entropy, largest, gap, logits.std(1, correction=0) / SPREAD_SCALE]
