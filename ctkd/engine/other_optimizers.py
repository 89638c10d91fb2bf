"""Any optimizer of torch.optim, or of timm, by its name."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ctkd.checks import suggest
from ctkd.engine.optimizer_recipes import Group, OptimizerRecipe
from ctkd.errors import ConfigError
from ctkd.registry import OPTIMIZERS

TIMM = "timm_"


@OPTIMIZERS.register("TorchOptimizer")
@dataclass(frozen=True)
class TorchOptimizerRecipe(OptimizerRecipe):
    """An optimizer of torch.optim ("RAdam"), or of timm ("timm_adopt").

    Its learning rate is a number of the host, not a tensor, since most of them take no other: a
    step with it is not captured as a CUDA graph.

    Attributes:
        name: as torch.optim spells it; behind `timm_` as timm does.
        options: further arguments of its constructor, such as {'betas': (0.9, 0.95)}.
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    decay_norms_and_biases: bool = False
    name: str = "RAdam"
    options: Mapping[str, Any] | None = None
    tensor_rates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._kind()  # an error before data are read

    def make(self, groups: list[Group], device: torch.device) -> torch.optim.Optimizer:
        """See `OptimizerRecipe`."""
        try:
            made: torch.optim.Optimizer = self._kind()(groups, lr=self.lr, **(self.options or {}))
        except (TypeError, ValueError) as error:
            given = f"TorchOptimizer.options = {self.options!r}"
            raise ConfigError(f"{given}: the optimizer {self.name} refuses: {error}") from error
        return made

    def _kind(self) -> Any:
        """The class, or what makes it."""
        if self.name.startswith(TIMM):
            return _timm_kind(self.name.removeprefix(TIMM))
        known = {
            name: kind
            for name, kind in vars(torch.optim).items()
            if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
        }
        if self.name not in known:
            raise ConfigError(
                f"TorchOptimizer.name = {self.name!r}: torch.optim has no such optimizer"
                f"{suggest(self.name, known)}"
            )
        return known[self.name]


def _timm_kind(name: str) -> Any:
    try:
        library: Any = importlib.import_module("timm.optim")
    except ImportError as error:
        raise ConfigError(f"the optimizer {TIMM}{name} needs timm: pip install timm") from error
    known = library.list_optimizers()
    if name not in known:
        raise ConfigError(
            f"TorchOptimizer.name = '{TIMM}{name}': timm has no such optimizer"
            f"{suggest(name, known)}"
        )
    return library.get_optimizer_class(name)
