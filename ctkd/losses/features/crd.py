"""CRD: a sample's two representations, contrasted with those of samples of other classes."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctkd.checks import expect, finite
from ctkd.losses.features.feature_loss import FeatureLoss, Features, StepRows
from ctkd.losses.features.negatives import Negatives
from ctkd.registry import FEATURES

EPSILON = 1e-7
DENSE = 16  # score the whole bank, where it has at most this many rows for each row that is needed


def nce_loss(scores: Tensor, samples: int) -> Tensor:
    """−mean over rows of log(p_0 / (p_0 + m)) + Σ_k log(m / (p_k + m)), with m = K / samples.

    Noise-contrastive estimation: `scores` [N, K + 1] are p, the sample itself first, then its K
    negatives, drawn with probability 1 / samples each.
    """
    noise = (scores.shape[1] - 1) / samples
    own, others = scores[:, :1], scores[:, 1:]
    true = torch.log(own / (own + noise + EPSILON)).sum(1)
    false = torch.log(noise / (others + noise + EPSILON)).sum(1)
    return -(true + false).mean()


@FEATURES.register
class CRD(FeatureLoss):
    """Contrastive Representation Distillation (Tian et al., ICLR 2020), on the pooled features.

    A linear layer for each network projects its features to `width` numbers of norm 1: v_s and
    v_t. Two banks keep the v of all training samples. A score is exp(⟨v, bank row⟩ / tau) / Z: of
    v_s with the teacher's bank, and of v_t with the student's; Z is fixed by the first step. The
    loss is the sum of both `nce_loss`es. Afterwards the step's rows enter the banks:
    m ← momentum · m + (1 − momentum) · v, of norm 1 again.

    The negatives are samples of other classes, a function of the seed and the number of calls; see
    `Negatives`. With several ranks, each gathers the rows of all, so all have the same banks.

    Memory: 2 · width floats for each training sample: 51 MB for 50,000 samples, 1.3 GB for 1.28
    million, and as much again in a checkpoint.
    """

    compares_rows: ClassVar = True
    needs_class: ClassVar = True
    needs: ClassVar = ("samples",)

    def __init__(
        self,
        weight: float = 0.8,
        at: Sequence[str] = ("pooled",),
        width: int = 128,
        negatives: int = 16384,
        tau: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__(weight, at)
        for name, value in {"width": width, "negatives": negatives}.items():
            expect(value >= 1, "CRD", name, value, "a whole number >= 1")
        expect(finite(tau) and tau > 0, "CRD", "tau", tau, "a finite number > 0")
        fine = finite(momentum) and 0 <= momentum < 1
        expect(fine, "CRD", "momentum", momentum, "a number in [0, 1)")
        self.width, self.negatives, self.tau, self.momentum = width, negatives, tau, momentum
        self.embeddings = nn.ModuleList()
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64))

    def build(self, student: Features, teacher: Features) -> None:
        """See `FeatureLoss`."""
        ((s, t),) = self.pairs(student, teacher)
        self.embeddings.extend(nn.Linear(f.flatten(1).shape[1], self.width) for f in (s, t))
        self.seed = torch.randint(2**62, ())

    def use_samples(self, targets: Tensor) -> None:
        """See `FeatureLoss`; makes the banks, whose first rows depend on the seed."""
        drawn = torch.Generator().manual_seed(int(self.seed))
        bound = (3 / self.width) ** 0.5
        like = self.embeddings[0].weight
        assert isinstance(like, Tensor)
        for name in ("student_bank", "teacher_bank"):
            bank = torch.empty(len(targets), self.width).uniform_(-bound, bound, generator=drawn)
            self.register_buffer(name, bank.to(like))
        self.register_buffer("scales", torch.zeros(2).to(like))  # Z, 0 before the first step
        self.drawn = Negatives(targets.cpu(), self.negatives).to(like.device)

    def forward(self, student: Features, teacher: Features, rows: StepRows) -> Tensor:
        """See `FeatureLoss`. In eval mode the banks stay as they are."""
        ((s, t),) = self.pairs(student, teacher)
        embed_s, embed_t = self.embeddings
        v_s, v_t = F.normalize(embed_s(s.flatten(1))), F.normalize(embed_t(t.flatten(1)))
        if rows.indices is None or rows.targets is None or not hasattr(self, "drawn"):
            raise ValueError(
                f"{self.named} needs indices=…, those of the samples in the training set, and a "
                "call of use_samples(classes of all training samples) before"
            )
        own = rows.indices.to(v_s.device, non_blocking=True)
        others = self.drawn(rows.targets, own, self.seed, self.calls)
        chosen = torch.cat([own[:, None], others], dim=1)
        bank_s, bank_t = self.get_buffer("student_bank"), self.get_buffer("teacher_bank")
        loss = self._side(v_s, bank_t, chosen, 0) + self._side(v_t, bank_s, chosen, 1)
        if self.training:
            self._remember(bank_s, own, v_s)
            self._remember(bank_t, own, v_t)
            self.calls += 1
        return loss

    def _side(self, v: Tensor, bank: Tensor, chosen: Tensor, side: int) -> Tensor:
        """The loss of v [N, width] against a bank.

        The gradient is taken here: the backward pass of the step comes after the bank has changed.
        """
        with torch.enable_grad():
            leaf = v.detach().requires_grad_()
            raw = torch.exp(self._products(leaf, bank, chosen) / self.tau)
            scales = self.get_buffer("scales")
            scale = torch.where(scales[side] > 0, scales[side], raw.detach().mean() * len(bank))
            loss = nce_loss(raw / scale, len(bank))
            (slope,) = torch.autograd.grad(loss, leaf)
        if self.training:
            scales[side] = scale
        return loss.detach() + ((v - v.detach()) * slope).sum()

    def _products(self, v: Tensor, bank: Tensor, chosen: Tensor) -> Tensor:
        """⟨v_i, row chosen_ik of the bank⟩, [N, K + 1]."""
        if len(bank) <= DENSE * chosen.shape[1]:
            return (v @ bank.T).gather(1, chosen)  # no copy of the rows, of width floats each
        return (bank[chosen] @ v[:, :, None]).squeeze(2)

    @torch.no_grad()
    def _remember(self, bank: Tensor, own: Tensor, v: Tensor) -> None:
        mixed = self.momentum * bank[own] + (1 - self.momentum) * v
        bank[own] = F.normalize(mixed)
