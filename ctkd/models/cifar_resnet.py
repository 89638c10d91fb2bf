"""Residual networks for 32x32 images (He et al. 2016, arXiv 1512.03385).

`resnet{6n+2}` has three stages of n basic blocks with 16, 32 and 64 channels; `x4` has four times
as many channels (with a stem of 32). `ResNet50` is ImageNet's bottleneck network with a 3x3 stem
and no max-pooling. Where the shape changes, a 1x1 convolution with normalization projects.

Every network maps images [N, 3, 32, 32] to logits [N, num_classes]. Convolutions start at He's
normal distribution (`blocks.initialize`), the linear layer at PyTorch's default. Keys are those
of the published RepDistiller and mdistiller files.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ctkd.models.blocks import classifier, conv, conv_bn, initialize, pool
from ctkd.registry import MODELS

Widths = tuple[int, int, int, int]  # of the stem and the three stages
NARROW: Widths = (16, 16, 32, 64)
TIMES_4: Widths = (32, 64, 128, 256)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The shortcut of a block: its input, projected where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return conv_bn(inputs, outputs, 1, stride)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions plus a shortcut, [N, inputs, H, W] -> [N, outputs, H/s, W/s]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = _projection(inputs, outputs, stride)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output for `x`."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out: torch.Tensor = self.relu(residual + self.downsample(x))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions plus a shortcut; a quarter as wide inside."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.conv1 = conv(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = _projection(inputs, outputs, stride)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output for `x`."""
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        out: torch.Tensor = self.relu(self.bn3(self.conv3(inner)) + self.shortcut(x))
        return out


def _stage(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, outputs: int, blocks: int, stride: int
) -> nn.Sequential:
    """`blocks` blocks. The first one strides and changes the number of channels."""
    first = block(inputs, outputs, stride)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(blocks - 1)))


def _feature_paths(blocks: Sequence[int], classifier: str) -> dict[str, str]:
    """The paths of the features. `blocks` counts the blocks of each stage."""
    return {
        "stem": "layer1:input",
        **{f"stage{k}": f"layer{k}" for k, _ in enumerate(blocks, 1)},
        **{f"before{k}": f"layer{k}.{last - 1}.relu:input" for k, last in enumerate(blocks, 1)},
        "pooled": f"{classifier}:input",
    }


class CifarResNet(nn.Module):
    """The three-stage network of `depth` = 6n + 2 layers."""

    def __init__(self, depth: int, widths: Widths, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.feature_paths = _feature_paths((blocks, blocks, blocks), "fc")
        self.conv1 = conv(3, widths[0], 3)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(BasicBlock, widths[0], widths[1], blocks, 1)
        self.layer2 = _stage(BasicBlock, widths[1], widths[2], blocks, 2)
        self.layer3 = _stage(BasicBlock, widths[2], widths[3], blocks, 2)
        self.fc = classifier(widths[3], num_classes)
        initialize(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] of images [N, 3, 32, 32]."""
        x = self.layer1(F.relu(self.bn1(self.conv1(images))))
        logits: torch.Tensor = self.fc(pool(self.layer3(self.layer2(x))))
        return logits


class CifarBottleneckResNet(nn.Module):
    """The four-stage network of `blocks` bottleneck blocks per stage, at 32, 16, 8 and 4 pixels."""

    def __init__(self, blocks: tuple[int, int, int, int], num_classes: int) -> None:
        super().__init__()
        self.feature_paths = _feature_paths(blocks, "linear")
        self.conv1 = conv(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(Bottleneck, 64, 256, blocks[0], 1)
        self.layer2 = _stage(Bottleneck, 256, 512, blocks[1], 2)
        self.layer3 = _stage(Bottleneck, 512, 1024, blocks[2], 2)
        self.layer4 = _stage(Bottleneck, 1024, 2048, blocks[3], 2)
        self.linear = classifier(2048, num_classes)
        initialize(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] of images [N, 3, 32, 32]."""
        x = self.layer1(F.relu(self.bn1(self.conv1(images))))
        logits: torch.Tensor = self.linear(pool(self.layer4(self.layer3(self.layer2(x)))))
        return logits


@MODELS.register
def resnet8(num_classes: int = 100) -> nn.Module:
    """One block per stage."""
    return CifarResNet(8, NARROW, num_classes)


@MODELS.register
def resnet14(num_classes: int = 100) -> nn.Module:
    """Two blocks per stage."""
    return CifarResNet(14, NARROW, num_classes)


@MODELS.register
def resnet20(num_classes: int = 100) -> nn.Module:
    """Three blocks per stage; the student of most published pairs."""
    return CifarResNet(20, NARROW, num_classes)


@MODELS.register
def resnet32(num_classes: int = 100) -> nn.Module:
    """Five blocks per stage."""
    return CifarResNet(32, NARROW, num_classes)


@MODELS.register
def resnet44(num_classes: int = 100) -> nn.Module:
    """Seven blocks per stage."""
    return CifarResNet(44, NARROW, num_classes)


@MODELS.register
def resnet56(num_classes: int = 100) -> nn.Module:
    """Nine blocks per stage."""
    return CifarResNet(56, NARROW, num_classes)


@MODELS.register
def resnet110(num_classes: int = 100) -> nn.Module:
    """Eighteen blocks per stage."""
    return CifarResNet(110, NARROW, num_classes)


@MODELS.register
def resnet8x4(num_classes: int = 100) -> nn.Module:
    """One block per stage, four times as wide."""
    return CifarResNet(8, TIMES_4, num_classes)


@MODELS.register
def resnet32x4(num_classes: int = 100) -> nn.Module:
    """Five blocks per stage, four times as wide."""
    return CifarResNet(32, TIMES_4, num_classes)


@MODELS.register
def ResNet50(num_classes: int = 100) -> nn.Module:  # noqa: N802  (the published tables' spelling)
    """ImageNet's ResNet-50 for small images: a 3x3 stem, no max-pooling."""
    return CifarBottleneckResNet((3, 4, 6, 3), num_classes)
