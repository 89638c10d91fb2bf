"""KD from tokens that the teacher drew: unbiased, with a few numbers for each row of the teacher.

A row of the teacher is [numbers], in this order: n token numbers, drawn from p at T = 2; their n
logits; log Z(T) = log Σ exp(z / T) at eight temperatures; and the mean logit Σ p z there.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ctkd.losses.objectives import KD, Terms
from ctkd.losses.per_row import cross_entropy_rows, full_precision
from ctkd.losses.two_temperatures import Temperatures
from ctkd.registry import OBJECTIVES

DRAWN_AT = 2.0
NODES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)  # temperatures, of the numbers that are exact
LOW, HIGH = NODES[0], NODES[-1]


class Draws(NamedTuple):
    """The numbers of teacher rows: tokens [N, n], logits [N, n], log_z [N, 8], means [N, 8]."""

    tokens: Tensor
    logits: Tensor
    log_z: Tensor
    means: Tensor


def draw_rows(logits: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws `count` tokens from each row of a teacher, [N, C] -> [N, 2 · count + 16].

    A token number is exact in float32 up to 16 million tokens.
    """
    logits = full_precision(logits)
    tokens = (logits / DRAWN_AT).softmax(1).multinomial(count, True, generator=generator)
    log_z = [(logits / node).logsumexp(1) for node in NODES]
    means = [((logits / node).softmax(1) * logits).sum(1) for node in NODES]
    parts = (tokens.to(logits), logits.gather(1, tokens), torch.stack(log_z, 1))
    return torch.cat([*parts, torch.stack(means, 1)], dim=1)


def draws_of(rows: Tensor) -> Draws:
    """The parts of such rows."""
    count, odd = divmod(rows.shape[1] - 2 * len(NODES), 2)
    if count < 1 or odd:
        raise ValueError(
            f"teacher_logits has {rows.shape[1]} columns, neither those of the student nor 2n + "
            f"{2 * len(NODES)} of n tokens that `draw_rows` drew"
        )
    sizes = [count, count, len(NODES), len(NODES)]
    tokens, logits, log_z, means = torch.split(rows, sizes, dim=1)
    return Draws(tokens.long(), logits, log_z, means)


def log_z_at(draws: Draws, temperature: float | Tensor) -> Tensor:
    """Log Z at T, [N, 1], with its derivative: exact at the eight temperatures.

    d log Z / dβ is the mean logit, β = 1 / T. Between two temperatures it is the cubic polynomial
    in β that has the values and the derivatives of both.
    """
    beta = torch.as_tensor(1 / temperature).to(draws.log_z).reshape(-1, 1)
    nodes = beta.new_tensor([1 / node for node in reversed(NODES)])
    upper = torch.bucketize(beta.detach(), nodes).clamp(1, len(nodes) - 1)
    step = nodes[upper] - nodes[upper - 1]
    s = (beta - nodes[upper - 1]) / step
    upper = upper.expand(len(draws.log_z), 1)
    (f0, f1), (g0, g1) = (
        [column.flip(1).gather(1, index) for index in (upper - 1, upper)]
        for column in (draws.log_z, draws.means)
    )
    cubic = (1 + 2 * s) * (1 - s) ** 2 * f0 + s**2 * (3 - 2 * s) * f1
    return cubic + step * s * (1 - s) * ((1 - s) * g0 - s * g1)


def sampled_kd_rows(student: Tensor, rows: Tensor, temperature: float | Tensor) -> Tensor:
    """An unbiased estimate of T² · KL(p ‖ q) of each row, [N], never below 0.

    A token that is drawn with probability r gives (p log(p / q) + q − p) / r. The sum of q − p over
    all tokens is 0, and the term takes away most of the noise where q is near p.
    """
    draws = draws_of(rows)
    log_p = draws.logits / temperature - log_z_at(draws, temperature)
    at = NODES.index(DRAWN_AT)
    log_r = draws.logits / DRAWN_AT - draws.log_z[:, at : at + 1]
    log_q = (student / temperature).log_softmax(1).gather(1, draws.tokens)
    p, q = (log_p - log_r).exp(), (log_q - log_r).exp()
    kl = (p * (log_p - log_q) + q - p).mean(1, keepdim=True)
    return (kl * temperature * temperature).squeeze(1)


@OBJECTIVES.register
class SampledKD(KD):
    """ce_weight · CE + kd_weight · T² · KL, from tokens that the teacher drew at T = 2.

    For Teacher.rows = 'sampled'. The mean over the draws is KD's loss, and its gradients in student
    and T are KD's, for 1 <= T <= 6. The noise of a row grows with T above 2. With rows of logits it
    is KD.
    """

    two_temperatures = False
    same_columns = False  # a row of draws has its own

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        temperature: Temperatures | None,
        raw_student_logits: Tensor | None = None,
    ) -> Terms:
        """See `Objective`; `teacher_logits` may be rows of `draw_rows`."""
        given = (student_logits, teacher_logits, targets, temperature, raw_student_logits)
        if teacher_logits is None or temperature is None or isinstance(temperature, tuple):
            return super().__call__(*given)
        if student_logits.shape == teacher_logits.shape:
            return super().__call__(*given)
        student, raw = full_precision(student_logits), raw_student_logits
        kd = sampled_kd_rows(student, full_precision(teacher_logits), temperature)
        return {"ce": cross_entropy_rows(student if raw is None else raw, targets), "kd": kd}
