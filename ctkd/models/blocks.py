"""Parts of the CIFAR networks: a convolution, a pooled classifier, and initialization."""

import torch
import torch.nn.functional as F
from torch import nn

from ctkd.checks import expect


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded so that a stride of 1 keeps height and width."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution and its normalization. Published files number them 0 and 1."""
    return nn.Sequential(conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs))


def classifier(features: int, num_classes: int) -> nn.Linear:
    """The last layer, [N, features] -> [N, num_classes].

    Raises:
        ConfigError: `num_classes` is below 1.
    """
    expect(num_classes >= 1, "network", "num_classes", num_classes, "at least 1")
    return nn.Linear(features, num_classes)


def pool(features: torch.Tensor) -> torch.Tensor:
    """The mean over height and width, [N, C, H, W] -> [N, C]."""
    # flatten, not view: view fails on a channels-last tensor
    return F.adaptive_avg_pool2d(features, 1).flatten(1)


def initialize(model: nn.Module, linear_std: float | None = None) -> None:
    """He initialization (arXiv 1502.01852), N(0, 2 / (k² · output channels)) for convolutions.

    Biases of convolutions start at 0. Linear layers keep PyTorch's uniform default. With
    `linear_std` they start at N(0, linear_std²) with a bias of 0. PyTorch already starts
    normalization layers at 1 and 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
            nn.init.zeros_(module.bias)
