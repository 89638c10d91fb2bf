"""Checks before training that the parts of a run fit together."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ctkd.data.dataset import Dataset, ImageDataset
from ctkd.distiller import Distiller
from ctkd.errors import ConfigError


def check_network(role: str, model: nn.Module, dataset: ImageDataset, meta: bool) -> None:
    """Compares the classes that a network tells apart with the data set's.

    Raises:
        ConfigError: they differ, or the network cannot take the data set's images.
    """
    classes = _classifier_outputs(model) if meta else _try(role, model, dataset)
    if classes is None:
        classes = _try(role, model, dataset)
    if classes != dataset.num_classes:
        raise ConfigError(
            f"the {role} tells {classes} classes apart, the data set has {dataset.num_classes}: "
            "leave num_classes unset, and both follow the data"
        )


def _classifier_outputs(model: nn.Module) -> int | None:
    """The outputs of the last linear layer, which a dry run takes for a forward pass.

    A forward on the meta device would first import a second and a half's worth of torch.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return linear[-1].out_features if linear else None


def _try(role: str, model: nn.Module, dataset: ImageDataset) -> int:
    """The columns of the logits of two blank images."""
    was_training = model.training
    device = next(model.parameters()).device
    images = torch.zeros(2, *dataset.shape, device=device)
    try:
        with torch.no_grad():
            logits: Tensor = model.eval()(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        shape, reason = " × ".join(map(str, dataset.shape)), str(error).split("\n")[0]
        raise ConfigError(
            f"the {role} cannot take images of {shape}: {reason}. Give networks for this data set: "
            "`ctkd list networks` shows them; a file of pairs/ is for the data set of its folder"
        ) from error
    model.train(was_training)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        came = f"a tensor {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits)
        raise ConfigError(
            f"the {role} makes {came} of {len(images)} images: expected logits [{len(images)}, C]"
        )
    return logits.shape[1]


def check_policy(distiller: Distiller, dataset: Dataset) -> None:
    """Computes a temperature: a policy made for other logits fails here."""
    policy = distiller.policy
    if policy is None:
        return
    was_training = policy.training
    logits, targets = torch.zeros(2, dataset.num_classes), torch.zeros(2, dtype=torch.long)
    policy.eval()
    try:
        with torch.no_grad():
            distiller.temperature_of(logits, logits, targets)
    except ValueError as error:
        raise ConfigError(f"Method.policy does not fit the data set: {error}") from error
    policy.train(was_training)


def check_one_part(policy: nn.Module | None, parts: int) -> None:
    """Raises ConfigError where the policy needs all rows of a step and gets them in parts."""
    if parts > 1 and getattr(policy, "needs_whole_step", False):
        raise ConfigError(
            f"{type(policy).__name__} needs all rows of a step at once, and this run computes a "
            f"step in {parts} parts: use one process, and Runtime.accumulate = 1"
        )


def check_effect(bindings: Sequence[str], used: set[str]) -> None:
    """Refuses a binding of a component that this run does not use: it would silently do nothing."""
    for binding in bindings:
        target = re.match(r"\s*([\w/]+/)?(?:[\w.]+\.)?(\w+)\.(\w+)\s*=", binding)
        if target and target[2] not in used and target[2] != "macro":
            listed = ", ".join(sorted(used))
            raise ConfigError(f"{binding!r} changes nothing: this run uses only {listed}")
        if target and target[1]:
            name = f"{target[2]}.{target[3]}"
            raise ConfigError(f"{binding!r} changes nothing: no scope is used here, bind {name}")
