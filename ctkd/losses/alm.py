"""Chunk likelihoods: two vocabularies compared on stretches of text that both can name."""

import math

import torch
from torch import Tensor

from ctkd.losses.objectives import Objective, Terms
from ctkd.registry import OBJECTIVES

SURE = 1e-6  # nats; a chunk cannot be surer, so that log(1 − p) stays finite


@OBJECTIVES.register
class ALM(Objective):
    """ce_weight · CE + kd_weight · τ · KL(p^(1/τ) ‖ q^(1/τ)) of a chunk's likelihoods p and q.

    Minixhofer et al. 2025 (arXiv 2503.20083). A chunk is the text between two neighboring bytes at
    which tokens of both networks end. Its likelihood is the product of the probabilities of its
    tokens, p the teacher's and q the student's. The KL is that of two outcomes, the chunk or not.
    A row is a chunk and has two columns, log p and log(1 − p); see `chunk_rows`.

    With a = −log p, b = −log q, u = e^(−a/τ) and v = e^(−b/τ) the gradient is
    ∂L/∂b = (u − v) / (1 − v). For large τ, L approaches a log(a / b) − a + b.

    A learned τ rises to its bound. u and v are the chances that a Poisson process of rate a (b) has
    no event in a window of length 1/τ. τ such windows make one of length 1, so τ · KL is their
    information about the rate, and finer windows never have less: L rises with τ for every chunk,
    and there is no T*. Published is τ = 100, close to the limit.
    """

    in_chunks = True

    def __init__(self, ce_weight: float = 0.5, kd_weight: float = 0.5) -> None:
        super().__init__(ce_weight, kd=kd_weight)

    def terms(
        self, student: Tensor, teacher: Tensor, targets: Tensor, temperature: float | Tensor
    ) -> Terms:
        """{"kd" [N]}, the factor τ included; the first column is the chunk.

        Raises:
            ValueError: rows that are no chunks.
        """
        if student.shape[1] != 2:
            raise ValueError(
                f"ALM got rows of {student.shape[1]} columns: expected chunks, [N, 2], as "
                "`chunk_rows` makes them"
            )
        a, b = (-z.log_softmax(1)[:, :1].clamp(max=-SURE) for z in (teacher, student))
        log_u, log_v = -a / temperature, -b / temperature
        u = log_u.exp()
        kl = u * (log_u - log_v) + (1 - u) * (log_of_rest(log_u) - log_of_rest(log_v))
        return {"kd": (kl * temperature).squeeze(1)}

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """A learned temperature has no maximum."""
        if not learned:
            return []
        return [
            "ALM of every chunk grows with T, so a learned temperature only rises to its upper "
            "bound. Use a fixed one: Method.policy = @ConstantTemperature, Method.schedule = None"
        ]


def log_of_rest(log_p: Tensor) -> Tensor:
    """log(1 − p) of log p < 0, exact for p near 0 and near 1."""
    near_one = log_p > -math.log(2)
    # Each branch gets a harmless argument where it is not taken: its gradient is then finite.
    inner = torch.where(near_one, log_p, -1.0)
    outer = torch.where(near_one, -1.0, log_p)
    return torch.where(near_one, (-torch.expm1(inner)).log(), torch.log1p(-outer.exp()))


def chunk_rows(nats: Tensor) -> Tensor:
    """[M], −log p of each chunk, -> logits [M, 2] whose softmax is (p, 1 − p).

    Cross-entropy with class 0 is then −log p, the sum of that of the chunk's tokens.
    """
    log_p = -nats.clamp(min=SURE)
    return torch.stack([log_p, log_of_rest(log_p)], dim=1)
