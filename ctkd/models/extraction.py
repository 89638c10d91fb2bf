"""Features of any network, by the paths of its modules."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ctkd.errors import ConfigError
from ctkd.models.feature_paths import INPUT, blank_forward, module_of, paths_of

Features = dict[str, Tensor]


def features(
    network: nn.Module,
    paths: Sequence[str] | Mapping[str, str],
    example: Tensor | None = None,
) -> "Extractor":
    """The network as a function that returns its output and the features of the given paths.

        student = ctkd.features(resnet20(), ["stage3", "pooled"])
        logits, maps = student(images)

    Args:
        network: any module; its weights, its mode and its own calls stay as they are.
        paths: feature name -> module path, or built-in names; see `ctkd.models.feature_paths`.
        example: a batch of images. Networks that are not ctkd's need it for built-in names.

    Raises:
        ConfigError: a name or path is unknown. With an example also: a feature is not a tensor,
            or a later module overwrites it in place.
    """
    if not isinstance(paths, Mapping):
        paths = paths_of(network, paths, {}, example)
    extractor = Extractor(network, paths)
    if example is not None:
        extractor.shapes(example)
    return extractor


class Extractor:
    """A network with forward hooks that keep the outputs, or inputs, of its modules.

    If a module is called several times, its last call gives the feature. The hooks do nothing
    when the network itself is called.

    Attributes:
        network: the network.
        paths: feature name -> module path.
    """

    def __init__(self, network: nn.Module, paths: Mapping[str, str]) -> None:
        """Registers the hooks; `close` removes them. Raises ConfigError for an unknown path."""
        self.network, self.paths = network, dict(paths)
        self._kept: dict[str, Any] | None = None
        self._versions: dict[str, int] | None = None  # an in-place operation raises a version
        modules = {name: module_of(network, path) for name, path in self.paths.items()}
        self._handles = [self._listen(name, module) for name, module in modules.items()]

    def __call__(self, *inputs: Any) -> tuple[Any, Features]:
        """The network's output, and its features by name."""
        kept: Features = {}
        self._kept = kept
        try:
            output = self.network(*inputs)
        finally:
            self._kept = None
        return output, {name: kept[name] for name in self.paths}

    def close(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()

    def shapes(self, example: Tensor) -> dict[str, torch.Size]:
        """The shape of each feature of a batch of examples.

        Raises:
            ConfigError: a module is not called, its feature is not a tensor, or a later module
                overwrites it in place.
        """
        self._kept, self._versions = {}, {}
        try:
            blank_forward(self.network, example)
            kept, versions = self._kept, self._versions
        finally:
            self._kept = self._versions = None
        for name, path in self.paths.items():
            value = kept.get(name)
            fault = None
            if name not in kept:
                fault = "is not called in a forward pass of the network"
            elif not isinstance(value, Tensor):
                fault = f"gives a {type(value).__name__}, not a tensor: name a module inside it"
            elif value._version != versions[name]:
                fault = "gives a tensor that a later module overwrites in place: name that module"
            if fault is not None:
                owner = type(self.network).__name__
                raise ConfigError(f"feature {name!r} of {owner}: {path} {fault}")
        return {name: kept[name].shape for name in self.paths}

    def _listen(self, name: str, module: nn.Module) -> RemovableHandle:
        """Registers the hook of a feature."""
        overwrites = bool(getattr(module, "inplace", False))

        def keep(value: Any) -> None:
            if self._kept is not None:
                self._kept[name] = value
            if self._versions is not None:
                self._versions[name] = getattr(value, "_version", 0)

        def keep_input(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            if self._kept is not None:
                keep(arguments[0].clone() if overwrites else arguments[0])

        def keep_output(module: nn.Module, arguments: object, output: Any) -> None:
            keep(output)

        if self.paths[name].endswith(INPUT):
            return module.register_forward_pre_hook(keep_input)
        return module.register_forward_hook(keep_output)
