"""The groups of a student's parameters: which decay, and which layer has which learning rate."""

import re

from torch import Tensor, nn

NUMBERED = re.compile(r"(.*?\.\d+)\.")  # a repeated block: `layer1.0.` or `blocks.3.`


def grouped(
    student: nn.Module, weight_decay: float, decay_norms_and_biases: bool, layer_decay: float
) -> list[dict[str, object]]:
    """The parameters that are trained, in groups with `params`, `weight_decay` and `lr_scale`.

    Without exceptions it is one group, in the order of the parameters.
    """
    spared = set(getattr(student, "no_weight_decay", set)())  # timm's networks have it
    layers = layers_of(student) if layer_decay < 1 else {}
    last = max(layers.values(), default=0)
    found: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            decays = decay_norms_and_biases or (parameter.dim() > 1 and name not in spared)
            scale = layer_decay ** (last - layers.get(name, last))
            found.setdefault((weight_decay if decays else 0.0, scale), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), parameters in found.items()
    ]


def layers_of(network: nn.Module) -> dict[str, int]:
    """The layer of each parameter by its name, from 0.

    Layer 0 is all that comes before the first repeated block (a stem, position embeddings), then
    each repeated block is a layer, and all after the last one (a norm, the classifier) is the last.
    """
    layers, names = {}, [name for name, _ in network.named_parameters()]
    blocks = [match[1] if (match := NUMBERED.match(name)) else None for name in names]
    ends = [index for index, block in enumerate(blocks) if block is not None]
    numbers: dict[str | None, int] = {}
    for index, (name, block) in enumerate(zip(names, blocks, strict=True)):
        if not ends or index < ends[0]:
            layers[name] = 0
        elif index > ends[-1]:
            layers[name] = len(numbers) + 1
        else:
            layers[name] = numbers.setdefault(block, len(numbers) + 1)
    return layers
