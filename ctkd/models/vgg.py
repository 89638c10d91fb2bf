"""VGG with batch normalization for 32x32 images (Simonyan and Zisserman 2015, arXiv 1409.1556).

Five blocks of 3x3 convolutions (with bias), of 64, 128, 256, 512 and 512 channels, and one linear
layer. At 32 pixels the last of the four max-poolings, between the blocks of 512, is left out: the
final features are 4x4 before they are averaged. Convolutions start at He's normal
distribution, the linear layer at N(0, 0.01²), biases at 0. Keys as in the published files.
"""

import torch
import torch.nn.functional as F
from torch import nn

from ctkd.models.blocks import classifier, initialize, pool
from ctkd.registry import MODELS

CHANNELS = (3, 64, 128, 256, 512, 512)  # of the image and the five blocks


def _block(inputs: int, outputs: int, convolutions: int) -> nn.Sequential:
    """Convolution, norm, ReLU, `convolutions` times: numbered 0, 1, 2, then 3, 4, 5."""
    layers: list[nn.Module] = []
    for channels in (inputs, *[outputs] * (convolutions - 1)):
        convolution = nn.Conv2d(channels, outputs, 3, padding=1)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """A VGG; `convolutions` counts those of its five blocks. The first block is the stem."""

    def __init__(self, convolutions: tuple[int, int, int, int, int], num_classes: int) -> None:
        super().__init__()
        self.block0, self.block1, self.block2, self.block3, self.block4 = map(
            _block, CHANNELS[:-1], CHANNELS[1:], convolutions
        )
        self.classifier = classifier(CHANNELS[-1], num_classes)
        initialize(self, linear_std=0.01)
        last = [f"block{k}.{3 * count - 1}" for k, count in enumerate(convolutions)]  # ReLUs
        self.feature_paths = {
            "stem": "block0",
            **{f"stage{k}": f"block{k}" for k in (1, 2, 3, 4)},
            **{f"before{k}": f"{last[k]}:input" for k in (1, 2, 3, 4)},
            "pooled": "classifier:input",
        }

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] of images [N, 3, 32, 32]."""
        x = images
        for block in (self.block0, self.block1, self.block2):
            x = F.max_pool2d(block(x), 2)
        logits: torch.Tensor = self.classifier(pool(self.block4(self.block3(x))))
        return logits


@MODELS.register
def vgg8(num_classes: int = 100) -> nn.Module:
    """Five convolutions."""
    return VGG((1, 1, 1, 1, 1), num_classes)


@MODELS.register
def vgg11(num_classes: int = 100) -> nn.Module:
    """Eight convolutions (the paper's A)."""
    return VGG((1, 1, 2, 2, 2), num_classes)


@MODELS.register
def vgg13(num_classes: int = 100) -> nn.Module:
    """Ten convolutions (the paper's B)."""
    return VGG((2, 2, 2, 2, 2), num_classes)


@MODELS.register
def vgg16(num_classes: int = 100) -> nn.Module:
    """Thirteen convolutions (the paper's D)."""
    return VGG((2, 2, 3, 3, 3), num_classes)


@MODELS.register
def vgg19(num_classes: int = 100) -> nn.Module:
    """Sixteen convolutions (the paper's E)."""
    return VGG((2, 2, 4, 4, 4), num_classes)
