"""The step of a run: clips, moves student and policy, each with an optimizer of its own kind."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, is_tensor, nn

from ctkd.distiller import Distiller
from ctkd.engine.ema import Average
from ctkd.engine.optimizer_recipes import Group, OptimizerRecipe
from ctkd.engine.parameter_groups import grouped
from ctkd.errors import NonFiniteError

if TYPE_CHECKING:
    from ctkd.engine.config.run import Run

SMALLEST_SCALE = 2.0**-20  # of a loss; it starts at 2^16 and is halved by each skipped step


class Optimizer:
    """The optimizers of student, helpers and policy, as one.

    Student and helpers (modules of the objective or the transform) share one torch optimizer; the
    policy has its own, unless its recipe is the student's: then it is a group of the same one.

    Attributes:
        student, helpers, policy: the parameters that are trained.
        torch: the torch optimizers, one or two.
        average: the moving average of the student.
    """

    def __init__(
        self,
        recipe: OptimizerRecipe,
        student: nn.Module,
        policy: nn.Module | None,
        *,
        policy_recipe: OptimizerRecipe | None = None,
        helpers: Sequence[nn.Module] = (),
        average: Average | None = None,
        scaled: bool = False,
    ) -> None:
        """Makes the groups; a policy without parameters gives none.

        `policy_recipe` is the policy's; None for the student's. `average` follows the student.

        `scaled` multiplies the loss, and divides the gradients, by a power of two that follows
        them: in float16 small ones would be 0. A step whose gradients overflow is skipped; of two
        torch optimizers each skips its own.
        """
        self.recipe, self.policy_recipe = recipe, policy_recipe or recipe
        self.student = _trained(student)
        self.helpers = _trained(nn.ModuleList(helpers))
        self.policy = [] if policy is None else _trained(policy)
        device = (self.student or self.policy)[0].device
        settings = (recipe.weight_decay, recipe.decay_norms_and_biases, recipe.layer_decay)
        ours: list[Group] = [*grouped(student, *settings)]
        if self.helpers:
            own = recipe.helper_weight_decay
            decay = recipe.weight_decay if own is None else own
            scale = recipe.helper_lr_scale
            ours.append({"params": self.helpers, "weight_decay": decay, "lr_scale": scale})
        theirs: list[Group] = []
        if self.policy:
            decay, scale = (
                self.policy_recipe.policy_weight_decay,
                self.policy_recipe.policy_lr_scale,
            )
            theirs.append({"params": self.policy, "weight_decay": decay, "lr_scale": scale})
        if self.policy_recipe is recipe:
            ours, theirs = [*ours, *theirs], []
        kinds = ((recipe, ours), (self.policy_recipe, theirs))
        self.torch = [_made(kind, groups, device) for kind, groups in kinds if groups]
        self.average = average or Average()
        self.average.follow(student, device)
        self._nothing = torch.zeros((), device=device)  # the norm of no gradients
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        if scaled:
            for (kind, _), optimizer in zip(kinds, self.torch, strict=False):
                kind.fill(optimizer)

    def state(self) -> dict[str, Any]:
        """The state that `load` restores."""
        steps = [optimizer.state_dict() for optimizer in self.torch]
        return {"optimizers": steps, "average": self.average.state()}

    def load(self, saved: dict[str, Any]) -> None:
        """Restores the state of another optimizer with the same groups."""
        self.average.load(saved["average"])
        for optimizer, state in zip(self.torch, saved["optimizers"], strict=True):
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(state)
            # torch has replaced the tensors of the learning rate by those of the state, which may
            # are on the CPU: a captured step would read such a value once and never again.
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                if is_tensor(rate):
                    group["lr"] = rate.copy_(group["lr"])

    def at(self, step: int, factor: float) -> float:
        """Sets what depends on the step (from 0): all rates, each its `lr` times the factor.

        Returns the student's rate.
        """
        self.average.at(step)
        for optimizer in self.torch:
            for group in optimizer.param_groups:
                rate = group["base_lr"] * factor * group["lr_scale"]
                group["lr"] = group["lr"].fill_(rate) if is_tensor(group["lr"]) else rate
        return self.recipe.lr * factor

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of the loss, scaled where the optimizer is `scaled`."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> tuple[Tensor, Tensor]:
        """Clips, steps, and clears the gradients; returns the norms (0-d) of student and policy.

        Gradients that overflowed moved nothing: their norms are returned as 0.
        """
        for optimizer in self.torch:
            self.scaler.unscale_(optimizer)
        norm = self._clip(self.student, self.recipe.clip_norm)
        self._clip(self.helpers, self.recipe.clip_norm)
        policy_norm = self._clip(self.policy, self.policy_recipe.policy_clip_norm)
        for optimizer in self.torch:
            self.scaler.step(optimizer)
        self.average.update()
        self.scaler.update()
        for optimizer in self.torch:
            optimizer.zero_grad(set_to_none=True)
        if self.scaler.is_enabled():
            norm, policy_norm = (n.nan_to_num(0.0, 0.0) for n in (norm, policy_norm))
        return norm, policy_norm

    def _clip(self, parameters: list[nn.Parameter], limit: float | None) -> Tensor:
        """Limits the norm of the gradients; returns the norm before."""
        if not parameters:
            return self._nothing
        return nn.utils.clip_grad_norm_(parameters, limit or math.inf)

    def check(self) -> None:
        """Raises NonFiniteError where no scale of the loss keeps the gradients finite."""
        if self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_SCALE:
            raise NonFiniteError(
                "the gradients were NaN or infinite in float16 at every scale of the loss: "
                "use --gin_param \"precision = 'bfloat16'\" or 'float32'"
            )


def optimizer_of(
    run: "Run", student: nn.Module, distiller: Distiller, average: Average
) -> Optimizer:
    """The optimizer of a run, whose networks are on their device."""
    return Optimizer(
        run.optimizers.student,
        student,
        distiller.policy,
        policy_recipe=run.optimizers.policy,
        helpers=distiller.helpers,
        average=average,
        scaled=run.runtime.precision == "float16",
    )


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _made(
    recipe: OptimizerRecipe, groups: list[Group], device: torch.device
) -> torch.optim.Optimizer:
    """The torch optimizer of a recipe."""
    for group in groups:
        group["base_lr"] = recipe.lr
        rate = group["lr"] = recipe.lr * group["lr_scale"]
        if recipe.tensor_rates:  # so that a captured step sees the rate change
            group["lr"] = torch.tensor(rate, device=device)
    return recipe.make(groups, device)
