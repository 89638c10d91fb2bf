"""Lion as a torch optimizer whose learning rate may be a 0-d tensor on the device."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LionSteps(torch.optim.Optimizer):
    """w ← w − lr (sign(β₁ m + (1 − β₁) g) + decay · w), then m ← β₂ m + (1 − β₂) g.

    Chen et al. 2023, arXiv 2302.06675, algorithm 2. Reads no value back from the device.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float | Tensor,
        betas: tuple[float, float],
        weight_decay: float = 0.0,
    ) -> None:
        """`parameters` are tensors or groups, as in `torch.optim`."""
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Takes one step; `closure` is not supported."""
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum: Tensor = state["momentum"]
                direction = torch.lerp(gradient, momentum, first).sign_()
                direction.add_(parameter, alpha=group["weight_decay"])
                parameter.sub_(direction.mul_(group["lr"]))
                momentum.lerp_(gradient, 1 - second)
