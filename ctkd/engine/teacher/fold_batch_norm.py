"""Batch normalization folded into the convolutions before it, for a network that is only used.

In eval mode a normalization is a fixed scale and shift per channel, so a convolution with other
weights and a bias computes both at once:

    w' = w · γ/√(σ² + ε),   b' = (b − μ) · γ/√(σ² + ε) + β.
"""

import copy

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Logits of the two networks in float64, whose own rounding is far below, relative to the largest.
TOLERANCE = 1e-9


def fold(network: nn.Module, example: Tensor) -> tuple[nn.Module, str | None]:
    """The network with its normalizations folded, or itself and why it could not be.

    Folding is done, and compared with the network on `example`, in float64; only then are the
    weights rounded to what they were.

    Args:
        network: in eval mode.
        example: inputs [N, C, H, W] to compare the two on.

    Returns:
        (network, None), or the network as it came and a reason in a user's words.
    """
    dtype = next(network.parameters()).dtype
    exact = copy.deepcopy(network).double()
    try:
        folded = _folded(fx.symbolic_trace(exact))
        with torch.no_grad():
            expected, actual = exact(example.double()), folded(example.double())
    except Exception as error:  # tracing runs the network's own code on stand-ins for tensors
        reason = str(error).split("\n")[0]
        return network, f"it cannot be traced ({type(error).__name__}: {reason})"
    difference = ((actual - expected).abs().max() / expected.abs().max()).item()
    if not difference <= TOLERANCE:
        return network, f"folded, its logits differ by {difference:.1e} of the largest"
    return folded.to(dtype), None


def _folded(traced: fx.GraphModule) -> fx.GraphModule:
    """Replaces each pair of a convolution and a normalization that is its only reader."""
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        source, norm = node.args[0], modules[node.target]
        foldable = source.op == "call_module" and isinstance(modules[source.target], nn.Conv2d)
        # A convolution used twice has two normalizations and one weight.
        calls = sum(n.target == source.target for n in traced.graph.nodes if n.op == source.op)
        if not foldable or len(source.users) > 1 or calls > 1 or norm.running_mean is None:
            continue
        traced.set_submodule(source.target, fuse_conv_bn_eval(modules[source.target], norm))
        node.replace_all_uses_with(source)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
