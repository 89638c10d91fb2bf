"""Names of a network's features, and the module paths behind them.

A path is a module's name in `named_modules`: the feature is the module's output.
`PATH:input` is the module's input. These names need no path:

- `stem`; `stage1`, `stage2`, …; `last`, the last stage;
- `before1`, `before2`, …, the stages before their activation;
- `final`, the map before pooling (the last stage, if there is no other map);
- `pooled`, the classifier's input.

The networks of ctkd list them in `feature_paths`. For any other network the size of its maps
shows the stages.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ctkd.checks import suggest
from ctkd.errors import ConfigError

INPUT = ":input"
SMALL_MAP = 4  # an image is at least this many times as large as the map of the first stage


def paths_of(
    network: nn.Module, names: Sequence[str], own: Mapping[str, str], example: Tensor | None
) -> dict[str, str]:
    """The path of each name; "stages" and "befores" stand for all stages of the network.

    Args:
        own: the user's paths; they override the built-in ones.
        example: images [N, C, H, W] for a network without `feature_paths`, or None.

    Raises:
        ConfigError: a name is unknown.
    """
    known = dict(own)
    if not set(names) <= known.keys():
        known = built_in(network, example) | known
    numbered = {"stages": _numbered(known, "stage"), "befores": _numbered(known, "before")}
    if numbered["stages"]:
        known.setdefault("last", known[numbered["stages"][-1]])
        known.setdefault("final", known["last"])
    wanted = [n for name in names for n in numbered.get(name) or [name]]
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"{type(network).__name__} has no feature named {name!r}{suggest(name, known)}: "
                f"it has {', '.join(known)}. Features.student and Features.teacher give names to "
                "module paths"
            )
    return {name: known[name] for name in wanted}


def _numbered(names: Mapping[str, str], kind: str) -> list[str]:
    """The names of a kind, in the order of their numbers."""
    found = [name for name in names if re.fullmatch(rf"{kind}\d+", name)]
    return sorted(found, key=lambda name: int(name.removeprefix(kind)))


def built_in(network: nn.Module, example: Tensor | None) -> dict[str, str]:
    """The names that need no path."""
    listed = getattr(network, "feature_paths", None)
    if isinstance(listed, Mapping):
        return dict(listed)
    return {} if example is None else _found(network, example)


def module_of(network: nn.Module, path: str) -> nn.Module:
    """The module of a path.

    Raises:
        ConfigError: no module has this path; the message names the nearest paths.
    """
    modules: dict[str, nn.Module] = dict(network.named_modules())
    wanted = path.removesuffix(INPUT)
    if not wanted or wanted not in modules:
        parent = wanted.rpartition(".")[0]
        near = [name for name in modules if name and name.rpartition(".")[0] == parent]
        hint = suggest(wanted, modules) or (f"; there are {', '.join(near[:8])}" if near else "")
        raise ConfigError(f"{type(network).__name__} has no module {wanted!r}{hint}")
    return modules[wanted]


def classifier_path(network: nn.Module) -> str | None:
    """The path of the last linear layer, or None."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


def _found(network: nn.Module, example: Tensor) -> dict[str, str]:
    """Stages by the size of square maps: for each size, the last module at the shallowest level.

    A size above a quarter of the image's side belongs to the stem, a size of 1 to the pooling.
    """
    deepest: dict[int, str] = {}
    for name, size in _map_sizes(network, example).items():
        if size not in deepest or name.count(".") <= deepest[size].count("."):
            deepest[size] = name
    largest = example.shape[-1] // SMALL_MAP
    stages = [deepest[size] for size in sorted(deepest, reverse=True) if 1 < size <= largest]
    stems = [deepest[size] for size in sorted(deepest) if size > largest]
    found = {"stem": stems[0]} if stems else {}
    found |= {f"stage{k}": name for k, name in enumerate(stages, 1)}
    found |= {
        f"before{k}": path for k, name in enumerate(stages, 1) if (path := _before(network, name))
    }
    classifier = classifier_path(network)
    return found if classifier is None else {**found, "pooled": classifier + INPUT}


def _before(network: nn.Module, stage: str) -> str | None:
    """The input of a stage's last activation, if its last block names it `relu`."""
    blocks = [name for name, _ in network.get_submodule(stage).named_children()]
    path = f"{stage}.{blocks[-1]}.relu" if blocks else ""
    return path + INPUT if path in dict(network.named_modules()) else None


def _map_sizes(network: nn.Module, example: Tensor) -> dict[str, int]:
    """The map sizes of the modules that are called once, in the order of their outputs.

    Maps that a later module overwrites in place are left out.
    """
    calls: dict[str, list[tuple[Tensor, int]]] = {}

    def listen(name: str, module: nn.Module) -> RemovableHandle:
        def keep(module: nn.Module, arguments: object, output: object) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                calls.setdefault(name, []).append((output, output._version))

        return module.register_forward_hook(keep)

    handles = [listen(name, module) for name, module in network.named_modules() if name]
    try:
        blank_forward(network, example)
    finally:
        for handle in handles:
            handle.remove()
    once = {name: made[0] for name, made in calls.items() if len(made) == 1}
    return {
        name: output.shape[-1]
        for name, (output, version) in once.items()
        if output._version == version and output.shape[-1] == output.shape[-2]
    }


def blank_forward(network: nn.Module, example: Tensor) -> None:
    """Calls the network in eval mode, without gradients; its mode is restored."""
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(example)
    finally:
        network.train(was_training)
