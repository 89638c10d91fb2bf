"""The parameters and multiply–accumulates of networks and temperature policies.

One multiply–accumulate (MAC) is one product added to a sum; convolutions and matrix products alone
are counted, as in the field's tables. fvcore traces a network and counts MACs; PyTorch's own
counter watches the operations and counts a product and a sum as two.
"""

import copy
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ctkd.builtin import SMALL_NETWORKS
from ctkd.errors import ConfigError
from ctkd.registry import MODELS, TEMPERATURES

POLICIES = (
    "ConstantTemperature",
    "AnnealedTemperature",
    "GlobalTemperature",
    "InstanceTemperature",
)
COUNTED = ("conv", "linear", "addmm", "matmul", "bmm")
# A product in the forward pass is two in the backward one: by the weights and by the inputs.
TRAINING = 3


@dataclass(frozen=True)
class Count:
    """The counts of a network or of a policy.

    Attributes:
        parameters: learned numbers.
        macs: of one sample's forward, by fvcore.
        checked: the same by PyTorch's counter.
    """

    parameters: int
    macs: int
    checked: int

    @property
    def agrees(self) -> bool:
        """Whether the two counters agree."""
        return self.macs == self.checked


@dataclass(frozen=True)
class PairCount:
    """A teacher, a student, and each policy's count on their logits."""

    name: str
    classes: int
    teacher: Count
    student: Count
    policies: dict[str, Count]

    @property
    def step(self) -> int:
        """MACs of a training step, by sample: the teacher forward, the student both ways."""
        return self.teacher.macs + TRAINING * self.student.macs

    def share(self, policy: str) -> float:
        """The policy's percentage of a step that has it; at most that, as if all were learned."""
        own = TRAINING * self.policies[policy].macs
        return 100 * own / (self.step + own)


def split_name(pair: str) -> tuple[str, str]:
    """(teacher, student) of a pair's name: wrn_40_2_wrn_16_2 has more than one underscore."""
    for index, letter in enumerate(pair):
        teacher, student = pair[:index], pair[index + 1 :]
        if letter == "_" and teacher in MODELS and student in MODELS:
            return teacher, student
    raise ConfigError(f"the pair {pair}: expected TEACHER_STUDENT, such as resnet56_resnet20")


def count_pair(name: str, teacher: str, student: str) -> PairCount:
    """Counts a pair: CIFAR's networks on 32 × 32 pixels and 100 classes, others on ImageNet's."""
    small = student in SMALL_NETWORKS
    side, classes = (32, 100) if small else (224, 1000)
    return PairCount(
        name,
        classes,
        _network(teacher, side, classes),
        _network(student, side, classes),
        {policy: count_policy(policy, classes) for policy in POLICIES},
    )


def make_policy(name: str, classes: int) -> nn.Module:
    """A policy with its defaults, for logits of `classes` classes."""
    kind = TEMPERATURES.get(name)
    policy: nn.Module = kind(classes) if name == "InstanceTemperature" else kind()
    return policy


def count_policy(name: str, classes: int) -> Count:
    """A policy on one row of each network's logits."""
    policy = make_policy(name, classes)
    logits = torch.zeros(1, classes)
    return count(_Traceable(policy), (logits, logits, torch.zeros(())))


class _Traceable(nn.Module):
    """A policy whose output depends on its inputs, as tracing demands: a constant T does not."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, student: Tensor, teacher: Tensor, progress: Tensor) -> Tensor:
        """T, with a zero of the inputs added, which no counter counts."""
        temperature: Tensor = self.policy(student, teacher, progress)
        return temperature + 0 * (student.sum() + teacher.sum() + progress)


_KNOWN: dict[tuple[str, int, int], Count] = {}


def _network(name: str, side: int, classes: int) -> Count:
    """A network's count, cached, since a network is in several pairs."""
    key = (name, side, classes)
    if key not in _KNOWN:
        network: nn.Module = MODELS.get(name)(num_classes=classes)
        _KNOWN[key] = count(network, (torch.zeros(1, 3, side, side),))
    return _KNOWN[key]


def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> Count:
    """Counts one call; in eval mode, since tracing a network in train mode moves its statistics."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # fvcore's own, about torch.jit
        from fvcore.nn import FlopCountAnalysis

    module = copy.deepcopy(module).eval()
    parameters = sum(parameter.numel() for parameter in module.parameters())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(module, inputs)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = analysis.by_operator()
        with FlopCounterMode(display=False) as counter:
            module(*inputs)
    macs = sum(int(by_operator[name]) for name in COUNTED if name in by_operator)
    return Count(parameters, macs, counter.get_total_flops() // 2)
