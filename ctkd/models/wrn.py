"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv 1605.07146), images [N, 3, 32, 32].

`wrn_D_W` has D = 6n + 4 layers: three stages of n pre-activation blocks, of 16 W, 32 W and 64 W
channels. A shortcut is the input itself, or a 1x1 convolution of the activated input where
the number of channels changes. No dropout. Convolutions start at He's normal distribution, the
linear layer's weights at PyTorch's default, its bias at 0. Keys as in the published files.
"""

from collections import OrderedDict
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from ctkd.models.blocks import classifier, conv, initialize, pool
from ctkd.registry import MODELS


class PreactivationBlock(nn.Module):
    """Norm, ReLU, 3x3 convolution, twice: [N, inputs, H, W] -> [N, outputs, H/s, W/s]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        # If the number of channels stays (wrn_16_1's first stage), the size stays, too. None adds
        # no keys to the state dict.
        self.convShortcut = None if inputs == outputs else conv(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output for `x`."""
        active = F.relu(self.bn1(x))
        residual: torch.Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return residual + (x if self.convShortcut is None else self.convShortcut(active))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    """A stage. Published files name its blocks one level down, under `layer`."""
    first = PreactivationBlock(inputs, outputs, stride)
    rest = (PreactivationBlock(outputs, outputs, 1) for _ in range(blocks - 1))
    return nn.Sequential(OrderedDict(layer=nn.Sequential(first, *rest)))


class WideResNet(nn.Module):
    """The network of `depth` = 6n + 4 layers, `width` times as wide as ResNet's.

    A stage's feature is the sum of its last block, before the next normalization.
    """

    feature_paths: ClassVar = {
        "stem": "conv1",
        **{f"stage{k}": f"block{k}" for k in (1, 2, 3)},
        "before1": "block2.layer.0.bn1",
        "before2": "block3.layer.0.bn1",
        "before3": "bn1",
        "final": "relu",
        "pooled": "fc:input",
    }

    def __init__(self, depth: int, width: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = conv(3, 16, 3)
        self.block1 = _stage(16, 16 * width, blocks, 1)
        self.block2 = _stage(16 * width, 32 * width, blocks, 2)
        self.block3 = _stage(32 * width, 64 * width, blocks, 2)
        self.bn1, self.relu = nn.BatchNorm2d(64 * width), nn.ReLU()
        self.fc = classifier(64 * width, num_classes)
        initialize(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] of images [N, 3, 32, 32]."""
        x = self.block3(self.block2(self.block1(self.conv1(images))))
        logits: torch.Tensor = self.fc(pool(self.relu(self.bn1(x))))
        return logits


@MODELS.register
def wrn_16_1(num_classes: int = 100) -> nn.Module:
    """16 layers, width 1."""
    return WideResNet(16, 1, num_classes)


@MODELS.register
def wrn_16_2(num_classes: int = 100) -> nn.Module:
    """16 layers, width 2."""
    return WideResNet(16, 2, num_classes)


@MODELS.register
def wrn_40_1(num_classes: int = 100) -> nn.Module:
    """40 layers, width 1."""
    return WideResNet(40, 1, num_classes)


@MODELS.register
def wrn_40_2(num_classes: int = 100) -> nn.Module:
    """40 layers, width 2; the teacher of the published pairs."""
    return WideResNet(40, 2, num_classes)
