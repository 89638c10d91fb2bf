"""The exact adversary: each step's own T*, found by Newton's method instead of learned."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ctkd.checks import expect, finite
from ctkd.registry import TEMPERATURES
from ctkd.temperature.bounds import Bounds

GRID = 9  # temperatures at which L is computed before Newton's steps: L may have two maxima
STEPS = 4  # of Newton's method, each with a bracket that shrinks


@TEMPERATURES.register
class ExactTemperature(nn.Module):
    """T* = argmax L(T), L the mean of T² · KL over the rows of the step, in the range of CTKD's T.

    A learned T follows T* with a delay; this one has none. It has no parameters, no λ and no
    learning rate. `rate` is how fast it follows: each step moves log T by this share of the way to
    log T*, from `start`; with rate = 1, T = T* in every step. `cooperative` takes the argmin: the
    twin that makes the student's loss small.

    T* is that of KD's loss; the policy is refused with other objectives. It is computed in one
    process from all rows of the step, without a wait for the device, in the precision of the
    logits, at least float32.

    Attributes:
        bounds: (lower, upper) of T, both included.
        needs_whole_step: True: all rows of a step must be in one call.
        objectives: the names of the objectives whose loss it maximizes.

    Raises:
        ConfigError: a number out of its range.
    """

    learned: ClassVar[bool] = False
    needs_whole_step: ClassVar[bool] = True
    objectives: ClassVar[tuple[str, ...]] = ("KD",)
    log_temperature: Tensor
    grid: Tensor

    def __init__(
        self,
        tau_init: float = 1.0,
        tau_range: float = 20.0,
        rate: float = 1.0,
        start: float = 15.6212,
        cooperative: bool = False,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        limits = Bounds(tau_init, tau_range, owner)
        expect(finite(rate) and 0 < rate <= 1, owner, "rate", rate, "a number > 0, at most 1")
        expect(finite(start) and start > 0, owner, "start", start, "a finite number > 0")
        start = min(max(start, limits.lower), limits.upper)
        self.bounds: tuple[float, float] | None = (limits.lower, limits.upper)
        self.rate, self.sign = rate, -1.0 if cooperative else 1.0
        ends = math.log(limits.lower), math.log(limits.upper)
        self.register_buffer("grid", torch.linspace(*ends, GRID), persistent=False)
        self.register_buffer("log_temperature", torch.tensor(math.log(start)))

    @torch.no_grad()
    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, progress: float | Tensor
    ) -> Tensor:
        """[N, C] and [N, C] -> T, 0-d; `progress` has no effect."""
        dtype = torch.promote_types(student_logits.dtype, torch.float32)
        with torch.autocast(student_logits.device.type, enabled=False):
            best = extremum(
                student_logits.to(dtype), teacher_logits.to(dtype), self.grid, self.sign
            )
        if self.rate < 1:
            best = torch.lerp(self.log_temperature, best.to(self.log_temperature), self.rate)
            if self.training:
                self.log_temperature.copy_(best)
        assert self.bounds is not None
        return best.exp().clamp(*self.bounds)


def extremum(student: Tensor, teacher: Tensor, grid: Tensor, sign: float = 1.0) -> Tensor:
    """The log T of the largest L(T), or with sign = −1 of the smallest: [N, C], [N, C] -> 0-d.

    `grid` are rising values of log T; the result is between the first and the last.
    """
    grid = grid.to(student)
    losses = torch.stack([_loss(student, teacher, u.exp()) for u in grid.unbind()])
    best = (sign * losses).argmax().reshape(1)
    low, u, high = (
        grid.index_select(0, (best + k).clamp(0, len(grid) - 1)).reshape(()) for k in (-1, 0, 1)
    )
    for _ in range(STEPS):
        slope, curvature = (sign * each for each in derivatives(student, teacher, u))
        low, high = torch.where(slope > 0, u, low), torch.where(slope > 0, high, u)
        newton = u - slope / curvature
        inside = (curvature < 0) & (newton >= low) & (newton <= high)
        u = torch.where(inside, newton, (low + high) / 2)
    return u


def _loss(student: Tensor, teacher: Tensor, temperature: Tensor) -> Tensor:
    """L = mean of T² KL(p ‖ q), 0-d."""
    log_p, log_q = _log_softmax(teacher, temperature), _log_softmax(student, temperature)
    return temperature**2 * (log_p.exp() * log_p.sub(log_q)).sum() / len(student)


def _log_softmax(logits: Tensor, temperature: Tensor) -> Tensor:
    return (logits / temperature).log_softmax(1)


def derivatives(student: Tensor, teacher: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """dL/du and d²L/du² at T = exp(u), each 0-d; logits [N, C].

    With β = 1/T, F(β) = KL, d = z_t − z_s, moments under p unless q is named:

        F'  = E_q z_s − E z_s + β Cov(d, z_t)
        F'' = Var_q z_s − Cov(z_s, z_t) + Cov(d, z_t) + β E[(d − E d)(z_t − E z_t)²]
        dL/du = T² (2F − βF'),   d²L/du² = T² (4F − 3βF' + β²F'')

    The moments are unchanged by a common offset of a row, so β · z is replaced by its log-softmax,
    which gives βF' and β²F'' directly.
    """
    temperature = u.exp()
    log_q, log_p = _log_softmax(student, temperature), _log_softmax(teacher, temperature)
    p, q, gap = log_p.exp(), log_q.exp(), log_p - log_q

    def mean(weights: Tensor, values: Tensor) -> Tensor:
        return (weights * values).sum(1, keepdim=True)

    kl, of_q, of_p = mean(p, gap), mean(q, log_q), mean(p, log_p)
    from_q, from_p = log_q - of_q, log_p - of_p
    joint = p * (gap - kl) * from_p  # its sum is β² Cov(d, z_t)
    covariance = joint.sum(1, keepdim=True)
    third = mean(joint, from_p)
    first = of_q - mean(p, log_q) + covariance
    second = mean(q, from_q**2) - mean(p * from_p, log_q) + covariance + third
    square = temperature**2
    return square * (2 * kl - first).mean(), square * (4 * kl - 3 * first + second).mean()
