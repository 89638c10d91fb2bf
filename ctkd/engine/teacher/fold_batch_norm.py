"""Folds batch normalization into the convolutions before it, for a network in inference.

In eval mode a normalization is a fixed scale and shift per channel, so one convolution with other
weights and a bias computes both:

    w' = w · γ/√(σ² + ε),   b' = (b − μ) · γ/√(σ² + ε) + β.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ctkd.models.extraction import Extractor, Features
from ctkd.models.feature_paths import INPUT

# The largest relative difference of logits, in float64; the rounding of float64 is far smaller.
TOLERANCE = 1e-9
WithFeatures = Callable[[Tensor], tuple[Tensor, Features]]


class Folded(NamedTuple):
    """The result of `fold`.

    Attributes:
        network: the folded network, or the original one.
        with_features: the network as a function that returns (logits, features); None without
            paths.
        reason: why the network could not be folded, for the user; None if it was folded.
    """

    network: nn.Module
    with_features: WithFeatures | None
    reason: str | None


def fold(network: nn.Module, example: Tensor, paths: Mapping[str, str] | None = None) -> Folded:
    """The network with its normalizations folded, or the original network and the reason.

    Folding runs in float64, where the folded network is compared with the original one on
    `example`. After that the weights get their old precision again.

    Args:
        network: in eval mode.
        example: inputs [N, C, H, W] to compare the two on.
        paths: feature name -> module path; None for no features.
    """
    plain = None if paths is None else Extractor(network, paths)
    dtype = next(network.parameters()).dtype
    exact = copy.deepcopy(network).double()
    try:
        folded, with_features = _folded(exact, paths or {})
        with torch.no_grad():
            expected, actual = exact(example.double()), folded(example.double())
    except Exception as error:  # tracing runs the network's code on placeholders for tensors
        reason = str(error).split("\n")[0]
        return Folded(network, plain, f"it cannot be traced ({type(error).__name__}: {reason})")
    difference = ((actual - expected).abs().max() / expected.abs().max()).item()
    if not difference <= TOLERANCE:
        return Folded(
            network, plain, f"folded, its logits differ by {difference:.1e} of the largest"
        )
    return Folded(folded.to(dtype), None if plain is None else with_features.to(dtype), None)


def _folded(network: nn.Module, paths: Mapping[str, str]) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The network, and the network with features; both share their modules.

    A convolution and a normalization are replaced if only the normalization reads the convolution.
    """
    tracer = _Tracer(paths)
    traced = fx.GraphModule(network, tracer.trace(network), type(network).__name__)
    modules, features = dict(traced.named_modules()), tracer.features
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        source, norm = node.args[0], modules[node.target]
        foldable = source.op == "call_module" and isinstance(modules[source.target], nn.Conv2d)
        foldable = foldable and source not in features.values()
        # A convolution that is used twice has two normalizations but one weight.
        calls = sum(n.target == source.target for n in traced.graph.nodes if n.op == source.op)
        if not foldable or len(source.users) > 1 or calls > 1 or norm.running_mean is None:
            continue
        traced.set_submodule(source.target, fuse_conv_bn_eval(modules[source.target], norm))
        node.replace_all_uses_with(source)
        features = {name: source if kept is node else kept for name, kept in features.items()}
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced, _with_outputs(traced, features)


class _Tracer(fx.Tracer):
    """Traces a network, and keeps the node of each path's feature."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        super().__init__()
        self._names: dict[str, list[str]] = {}
        for name, path in paths.items():
            self._names.setdefault(path, []).append(name)
        self.features: dict[str, fx.Node] = {}

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Overrides `fx.Tracer`: called for every module, also for traced ones."""
        path = self.path_of_module(m)
        if names := self._names.get(path + INPUT):
            # An in-place activation would overwrite its input.
            received = args[0].clone() if getattr(m, "inplace", False) else args[0]
            self.features |= dict.fromkeys(names, received.node)
        output = super().call_module(m, forward, args, kwargs)
        if names := self._names.get(path):
            self.features |= dict.fromkeys(names, output.node)
        return output


def _with_outputs(traced: fx.GraphModule, features: Mapping[str, fx.Node]) -> fx.GraphModule:
    """The module with (output, features) as its output."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(traced.graph, copies)
    graph.output((output, {name: copies[node] for name, node in features.items()}))
    return fx.GraphModule(traced, graph)
