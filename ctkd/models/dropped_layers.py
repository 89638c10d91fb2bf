"""A transformers model without some of its layers, as a whole model of its own.

A layer has a number, by which it finds its keys and values in a cache, and in many models its kind.
The layers that are left get new numbers, and the configuration describes them: the model generates
with a cache, and can be saved and loaded.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ctkd.checks import expect
from ctkd.errors import ConfigError

NUMBERS = ("layer_idx", "layer_id", "layer_number", "layer_num")  # of a layer, and of its parts
# Settings that are a list with an entry for each layer.
LISTS = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "indexer_types")


def drop(network: Any, dropped: Sequence[int], owner: str) -> None:
    """Removes layers of a model.

    Raises:
        ConfigError: a number without a layer; a model without a list of layers; or the model's
            configuration cannot describe the layers that are left.
    """
    if not dropped:
        return
    config = network.config.get_text_config()
    count = config.num_hidden_layers
    holder, name = _list_of_layers(network, count, owner)
    fine = all(0 <= n < count for n in dropped) and len(set(dropped)) < count
    expect(fine, owner, "dropped", list(dropped), f"numbers from 0 to {count - 1}, not all of them")
    kept = [n for n in range(count) if n not in set(dropped)]
    layers = nn.ModuleList(getattr(holder, name)[n] for n in kept)
    for number, layer in enumerate(layers):
        for part in layer.modules():
            vars(part).update({each: number for each in NUMBERS if each in vars(part)})
    setattr(holder, name, layers)
    _describe(config, kept, count)
    path = next(path for path, module in network.named_modules() if module is holder)
    if _described(network, path) != _parts(holder):
        raise ConfigError(
            f"{owner}.dropped = {list(dropped)}: the kind of a layer of {type(network).__name__} "
            "depends on its number, and the configuration cannot describe the layers that are "
            "left: drop layers after which each one keeps its kind, the last ones, say"
        )


def _list_of_layers(network: Any, count: int, owner: str) -> tuple[nn.Module, str]:
    """The module that holds the list of layers, and the list's name."""
    for module in network.base_model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return module, name
    raise ConfigError(
        f"{owner}: {type(network).__name__} has no list of {count} layers to drop from"
    )


def _describe(config: Any, kept: Sequence[int], count: int) -> None:
    """Changes a configuration of `count` layers to one of those that are kept."""
    lists = {name: getattr(config, name, None) for name in LISTS}
    config.num_hidden_layers = len(kept)
    for name, entries in lists.items():
        if isinstance(entries, list | tuple) and len(entries) == count and name in vars(config):
            setattr(config, name, [entries[n] for n in kept])


def _described(network: Any, path: str) -> list[Any] | None:
    """The parts of a module of the model that is loaded with this configuration; None for none."""
    try:
        config = type(network.config).from_dict(network.config.to_dict())
        with torch.device("meta"):
            return _parts(type(network)(config).get_submodule(path))
    except Exception:  # each configuration has checks and errors of its own
        return None


def _parts(module: nn.Module) -> list[Any]:
    """Kinds, plain settings and shapes of the parts of a module."""
    found: list[Any] = [(name, each.shape) for name, each in module.state_dict().items()]
    for path, part in module.named_modules():
        plain = {
            name: value
            for name, value in vars(part).items()
            if isinstance(value, int | float | str | None)
            and not name.startswith("_")
            and name not in ("training", "gradient_checkpointing")
        }
        found.append((path, type(part).__name__, plain))
    return found
