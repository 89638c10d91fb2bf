"""The optimizer recipe: SGD with two parameter groups, and the learning rate as a function."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ctkd.checks import expect, finite
from ctkd.engine.config.settings import PARTS
from ctkd.errors import NonFiniteError

SMALLEST_SCALE = 2.0**-20  # of a loss; it starts at 2^16 and is halved by each skipped step


@PARTS.register("SGD")
@dataclass(frozen=True)
class SGDRecipe:
    """SGD for the student, and for the policy in a group of its own.

    Attributes:
        lr, momentum, nesterov, weight_decay: the student's.
        milestones: where the learning rate is multiplied by `gamma`: in epochs of the published
            recipe (after the 150th: 150), or all of them as fractions of the run (0.625).
        lr_batch_size: the batch size that `lr` is meant for; with another one (of the whole step,
            all ranks) the rate is scaled in proportion (Goyal et al. 2017, arXiv 1706.02677). None
            takes `lr` as it is.
        warmup_epochs: recipe epochs over which the rate rises linearly from nearly 0.
        clip_norm: the largest norm of the student's gradient; None for no limit.
        policy_lr_scale: the policy's learning rate over the student's.
        policy_weight_decay: 0 by default, since decay pulls the raw temperature to 0 and T to the
            middle of its range; the public CTKD code's is 5e-4 on CIFAR-100, 1e-4 on ImageNet.
        policy_clip_norm: as `clip_norm`, for the policy.
    """

    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    milestones: Sequence[float] = (150, 180, 210)
    gamma: float = 0.1
    lr_batch_size: int | None = None
    warmup_epochs: float = 0.0
    clip_norm: float | None = None
    policy_lr_scale: float = 1.0
    policy_weight_decay: float = 0.0
    policy_clip_norm: float | None = None

    def __post_init__(self) -> None:
        for name in ("lr", "gamma"):
            value = getattr(self, name)
            expect(value > 0 and finite(value), "SGD", name, value, "a number above 0")
        names = ("momentum", "weight_decay", "warmup_epochs", "policy_lr_scale")
        for name in (*names, "policy_weight_decay"):
            value = getattr(self, name)
            expect(value >= 0 and finite(value), "SGD", name, value, "a number of 0 or more")
        fine = self.momentum > 0 or not self.nesterov
        expect(fine, "SGD", "nesterov", True, "False where SGD.momentum is 0")
        for name in ("clip_norm", "policy_clip_norm"):
            value = getattr(self, name)
            expect(value is None or value > 0, "SGD", name, value, "None or a number above 0")
        size = self.lr_batch_size
        expected = "None or a number of 1 or more"
        expect(size is None or size >= 1, "SGD", "lr_batch_size", size, expected)
        fractions = [0 < milestone < 1 for milestone in self.milestones]
        fine = all(fractions) or not any(fractions)
        fine = fine and all(
            a < b for a, b in zip(self.milestones, self.milestones[1:], strict=False)
        )
        expected = "rising numbers, all of them epochs (1 or more) or all fractions (below 1)"
        expect(
            fine and all(m > 0 for m in self.milestones),
            "SGD",
            "milestones",
            self.milestones,
            expected,
        )

    def for_batches_of(self, size: int) -> "SGDRecipe":
        """The recipe with the rate that belongs to such a batch size."""
        if self.lr_batch_size is None:
            return self
        rate = self.lr * size / self.lr_batch_size
        return replace(self, lr=rate, lr_batch_size=size)

    def learning_rate(self, position: float, recipe_epochs: int) -> float:
        """The student's learning rate at a position in the recipe of `recipe_epochs` epochs."""
        scale = [recipe_epochs if milestone < 1 else 1 for milestone in self.milestones]
        # 0.28 · 25 is 7.000000000000001, and the drop is meant for the step at 7.
        reached = position + 1e-6
        passed = sum(reached >= m * s for m, s in zip(self.milestones, scale, strict=True))
        warm = min(1.0, position / self.warmup_epochs) if self.warmup_epochs else 1.0
        # Never quite 0: the first step of a warm-up already counts.
        return self.lr * self.gamma**passed * max(warm, 1e-3)


class Optimizer:
    """One torch optimizer over the student's and the policy's parameters."""

    def __init__(
        self,
        recipe: SGDRecipe,
        student: nn.Module,
        policy: nn.Module | None,
        *,
        scaled: bool = False,
    ) -> None:
        """Makes the groups; a policy without parameters gives none.

        `student` holds all modules that descend: the network, and modules of the objective.

        `scaled` multiplies the loss, and divides the gradients, by a power of two that follows
        them: in float16 small ones would be 0. A step whose gradients overflow is skipped.
        """
        self.recipe = recipe
        self.student = [p for p in student.parameters() if p.requires_grad]
        self.policy = [] if policy is None else [p for p in policy.parameters() if p.requires_grad]
        device = self.student[0].device
        groups = [{"params": self.student, "weight_decay": recipe.weight_decay}]
        if self.policy:
            groups.append({"params": self.policy, "weight_decay": recipe.policy_weight_decay})
        for group in groups:  # a tensor, so that a captured step sees it move
            group["lr"] = torch.tensor(recipe.lr, device=device)
        self.torch = torch.optim.SGD(
            groups, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True
        )
        self._nothing = torch.zeros((), device=device)  # the norm of no gradients
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        if scaled and recipe.momentum:
            # torch makes the buffers in the first step, from uninitialized memory where that step
            # is skipped. A momentum that starts at 0 equals one that starts in the first step.
            for parameter in (*self.student, *self.policy):
                self.torch.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def state(self) -> dict[str, Any]:
        """The state that `load` restores."""
        return self.torch.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Restores the state of another optimizer with the same groups."""
        rates = [group["lr"] for group in self.torch.param_groups]
        self.torch.load_state_dict(state)
        # torch has replaced the tensors of the learning rate by those of the state, which may lie
        # on the CPU: a captured step would read such a value once and never again.
        for group, rate in zip(self.torch.param_groups, rates, strict=True):
            group["lr"] = rate.copy_(group["lr"])

    def set_learning_rate(self, rate: float) -> None:
        """Sets the student's rate, and the policy's in proportion."""
        scales = (1.0, self.recipe.policy_lr_scale)
        for group, scale in zip(self.torch.param_groups, scales, strict=False):
            group["lr"].fill_(rate * scale)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of the loss, scaled where the optimizer is `scaled`."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> tuple[Tensor, Tensor]:
        """Clips, steps, and clears the gradients; returns the norms (0-d) of student and policy.

        Gradients that overflowed moved nothing: their norms are returned as 0.
        """
        self.scaler.unscale_(self.torch)
        limits = (self.recipe.clip_norm, self.recipe.policy_clip_norm)
        norms = [
            nn.utils.clip_grad_norm_(parameters, limit or math.inf) if parameters else self._nothing
            for parameters, limit in zip((self.student, self.policy), limits, strict=True)
        ]
        self.scaler.step(self.torch)
        self.scaler.update()
        self.torch.zero_grad(set_to_none=True)
        if self.scaler.is_enabled():
            norms = [norm.nan_to_num(0.0, 0.0) for norm in norms]
        return norms[0], norms[1]

    def check(self) -> None:
        """Raises NonFiniteError where no scale of the loss keeps the gradients finite."""
        if self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_SCALE:
            raise NonFiniteError(
                "the gradients were NaN or infinite in float16 at every scale of the loss: "
                "use --gin_param \"precision = 'bfloat16'\" or 'float32'"
            )
