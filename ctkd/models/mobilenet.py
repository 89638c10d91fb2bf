"""MobileNetV2 of half width for 32x32 images (Sandler et al. 2018, arXiv 1801.04381).

Differences from the paper, as in the published knowledge-distillation codebases: ReLU instead
of ReLU6, the stage with expansion 1 keeps its pointwise convolution, the second stage does not
stride (the last features are 2x2), no dropout. All convolutions start at He's normal distribution,
the linear layer at N(0, 0.01²) with a bias of 0. Keys as in the published files.
"""

from typing import ClassVar

import torch
from torch import nn

from ctkd.models.blocks import classifier, conv, conv_bn, initialize, pool
from ctkd.registry import MODELS

STEM, HEAD = 16, 1280
# expansion, channels at half width, blocks, stride of the first block
STAGES = (
    (1, 8, 1, 1),
    (6, 12, 2, 1),
    (6, 16, 3, 2),
    (6, 32, 4, 2),
    (6, 48, 3, 1),
    (6, 80, 3, 2),
    (6, 160, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1: [N, inputs, H, W] -> [N, outputs, H/s, W/s]."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *conv_bn(inputs, inner, 1),
            nn.ReLU(),
            conv(inner, inner, 3, stride, groups=inner),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            *conv_bn(inner, outputs, 1),  # linear: no activation on the narrow side
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output for `x`."""
        out: torch.Tensor = self.conv(x)
        return x + out if self.residual else out


class CIFARMobileNetV2(nn.Module):
    """The network of `STAGES`. Its features have 12, 16, 48 and 160 channels.

    A stage ends without an activation.
    """

    feature_paths: ClassVar = {
        "stem": "conv1",
        **{f"stage{k}": f"blocks.{block}" for k, block in enumerate((1, 2, 4, 6), 1)},
        **{f"before{k}": f"blocks.{block}" for k, block in enumerate((1, 2, 4, 6), 1)},
        "final": "conv2",
        "pooled": "classifier.0:input",
    }

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*conv_bn(3, STEM, 3, 2), nn.ReLU())
        inputs = STEM
        stages = []
        for expansion, channels, blocks, stride in STAGES:
            stage = [InvertedResidual(inputs, channels, stride, expansion)]
            stage += [InvertedResidual(channels, channels, 1, expansion) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
            inputs = channels
        self.blocks = nn.Sequential(*stages)
        self.conv2 = nn.Sequential(*conv_bn(inputs, HEAD, 1), nn.ReLU())
        # A sequence of one layer: published files call the layer `classifier.0`.
        self.classifier = nn.Sequential(classifier(HEAD, num_classes))
        initialize(self, linear_std=0.01)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] of images [N, 3, 32, 32]."""
        features = self.conv2(self.blocks(self.conv1(images)))
        logits: torch.Tensor = self.classifier(pool(features))
        return logits


@MODELS.register
def MobileNetV2(num_classes: int = 100) -> nn.Module:  # noqa: N802  (the published tables' spelling)
    """MobileNetV2, width 0.5, expansion 6."""
    return CIFARMobileNetV2(num_classes)
