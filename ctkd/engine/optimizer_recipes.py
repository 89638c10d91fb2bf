"""The optimizers by name, with their settings: SGD, AdamW, Lion."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch

from ctkd.checks import expect, finite
from ctkd.engine.lion import LionSteps
from ctkd.engine.lr_schedules import MultiStepLR, check_milestones
from ctkd.registry import OPTIMIZERS, name_of

R = TypeVar("R", bound="OptimizerRecipe")
Group = dict[str, Any]


def positive(value: float) -> bool:
    """Whether a number is above 0."""
    return value > 0


def not_negative(value: float) -> bool:
    """Whether a number is 0 or more."""
    return value >= 0


@dataclass(frozen=True)
class OptimizerRecipe:
    """What all optimizers have in common.

    A run has two of them: the student's (`Recipe.optimizer`) and the policy's
    (`Recipe.policy_optimizer`). Where both are the same kind, one set of settings serves both.

    Attributes:
        lr: the highest learning rate; a schedule multiplies it.
        weight_decay: the student's.
        lr_batch_size: the batch size that `lr` is meant for; with another one (of the whole step,
            all ranks) the rate is scaled in proportion (Goyal et al. 2017, arXiv 1706.02677). None
            takes `lr` as it is.
        decay_norms_and_biases: whether weight decay acts on one-dimensional parameters too, and on
            those that a network names in `no_weight_decay()` (a position embedding).
        layer_decay: each layer's rate over that of the next layer, from the classifier down; 1 for
            one rate (Clark et al. 2020; see `parameter_groups`).
        clip_norm: the largest norm of the student's gradient; None for no limit.
        helper_lr_scale, helper_weight_decay: of the objective's and the transform's parameters; a
            decay of None is the student's.
        policy_lr_scale: the policy's learning rate over `lr`.
        policy_weight_decay: 0 by default, since decay pulls the raw temperature to 0 and T to the
            middle of its range; the public CTKD code's is 5e-4 on CIFAR-100, 1e-4 on ImageNet.
        policy_clip_norm: as `clip_norm`, for the policy.
    """

    lr: float = 0.05
    weight_decay: float = 5e-4
    lr_batch_size: int | None = None
    decay_norms_and_biases: bool = True
    layer_decay: float = 1.0
    clip_norm: float | None = None
    helper_lr_scale: float = 1.0
    helper_weight_decay: float | None = None
    policy_lr_scale: float = 1.0
    policy_weight_decay: float = 0.0
    policy_clip_norm: float | None = None
    tensor_rates: ClassVar[bool] = True  # whether its rate may be a 0-d tensor on the device
    hides_lambda: ClassVar[bool] = True  # whether a step hardly depends on the gradient's size

    def __post_init__(self) -> None:
        self.check(positive, "a number above 0", "lr")
        self.check(positive, "None or a number above 0", "clip_norm", "policy_clip_norm")
        names = ("weight_decay", "helper_lr_scale", "policy_lr_scale", "policy_weight_decay")
        self.check(not_negative, "a number of 0 or more", *names)
        self.check(not_negative, "None or a number of 0 or more", "helper_weight_decay")
        self.check(lambda size: size >= 1, "None or a number of 1 or more", "lr_batch_size")
        self.check(lambda decay: 0 < decay <= 1, "a number above 0, up to 1", "layer_decay")

    def check(self, fine: Callable[[float], bool], expected: str, *names: str) -> None:
        """Raises ConfigError unless every parameter named is None, or finite and `fine`."""
        for name in names:
            value = getattr(self, name)
            valid = value is None or (finite(value) and fine(value))
            expect(valid, name_of(type(self)), name, value, expected)

    def check_betas(self, betas: Sequence[float]) -> None:
        """Raises ConfigError unless both of Adam's decay rates are in [0, 1)."""
        fine = all(finite(beta) and 0 <= beta < 1 for beta in betas)
        expect(fine, name_of(type(self)), "betas", betas, "two numbers from 0 to below 1")

    def for_batches_of(self: R, size: int) -> R:
        """The recipe with the rate that belongs to such a batch size."""
        if self.lr_batch_size is None:
            return self
        return replace(self, lr=self.lr * size / self.lr_batch_size, lr_batch_size=size)

    def make(self, groups: list[Group], device: torch.device) -> torch.optim.Optimizer:
        """The optimizer over groups of parameters, whose rates are 0-d tensors on the device."""
        raise NotImplementedError

    def fill(self, optimizer: torch.optim.Optimizer) -> None:
        """Makes the state that torch would leave uninitialized in a first step that is skipped."""

    def own_schedule(self, recipe_epochs: int) -> MultiStepLR | None:
        """The schedule of the learning rate that the optimizer's own settings describe, if any."""
        return None


@OPTIMIZERS.register("SGD")
@dataclass(frozen=True)
class SGDRecipe(OptimizerRecipe):
    """Stochastic gradient descent with momentum: v ← μ v + g, w ← w − lr v.

    Attributes:
        momentum, nesterov: of the student and of the policy.
        milestones, gamma, warmup_epochs: the schedule, `MultiStepLR`, where `Recipe.lr_schedule`
            is None; the warm-up rises linearly from nearly 0.
    """

    momentum: float = 0.9
    nesterov: bool = False
    milestones: Sequence[float] = (150, 180, 210)
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    hides_lambda: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(positive, "a number above 0", "gamma")
        self.check(not_negative, "a number of 0 or more", "momentum", "warmup_epochs")
        fine = self.momentum > 0 or not self.nesterov
        expect(fine, "SGD", "nesterov", True, "False where SGD.momentum is 0")
        check_milestones("SGD", self.milestones)

    def make(self, groups: list[Group], device: torch.device) -> torch.optim.Optimizer:
        """See `OptimizerRecipe`."""
        return torch.optim.SGD(
            groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=True
        )

    def fill(self, optimizer: torch.optim.Optimizer) -> None:
        """See `OptimizerRecipe`: a momentum of 0, which equals none."""
        if self.momentum:
            for parameter in parameters_of(optimizer):
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def own_schedule(self, recipe_epochs: int) -> MultiStepLR:
        """See `OptimizerRecipe`."""
        return MultiStepLR(self.warmup_epochs, recipe_epochs, self.milestones, self.gamma)


@OPTIMIZERS.register("AdamW")
@dataclass(frozen=True)
class AdamWRecipe(OptimizerRecipe):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101).

    Adam divides a gradient by its own size: as the policy's optimizer it would make λ ineffective.
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    decay_norms_and_biases: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(positive, "a number above 0", "eps")
        self.check_betas(self.betas)

    def make(self, groups: list[Group], device: torch.device) -> torch.optim.Optimizer:
        """See `OptimizerRecipe`."""
        # Capturable where a step may be captured as a CUDA graph.
        return torch.optim.AdamW(
            groups,
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            fused=True,
            capturable=device.type == "cuda",
        )


@OPTIMIZERS.register("Lion")
@dataclass(frozen=True)
class LionRecipe(OptimizerRecipe):
    """Steps by the sign of a mixture of momentum and gradient (Chen et al. 2023, arXiv 2302.06675).

    Every weight moves by `lr`: use a rate of 0.1 to 0.3 of AdamW's, and a decay 3 to 10 times its.
    """

    lr: float = 1e-4
    weight_decay: float = 0.5
    decay_norms_and_biases: bool = False
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_betas(self.betas)

    def make(self, groups: list[Group], device: torch.device) -> torch.optim.Optimizer:
        """See `OptimizerRecipe`."""
        return LionSteps(groups, self.lr, self.betas)


def parameters_of(optimizer: torch.optim.Optimizer) -> Iterable[torch.Tensor]:
    """All parameters of an optimizer, in the order of its groups."""
    return (parameter for group in optimizer.param_groups for parameter in group["params"])
