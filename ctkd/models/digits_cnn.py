"""Two small convolutional networks for the 8 × 8 digits, so that a first run takes a minute."""

import itertools
from typing import ClassVar

import torch
from torch import Tensor, nn

from ctkd.registry import MODELS


class DigitsCNN(nn.Module):
    """Three 3 × 3 convolutions with batch norm, global average pooling, one linear layer."""

    feature_paths: ClassVar = {
        **{f"stage{k}": f"features.{3 * k - 1}" for k in (1, 2, 3)},
        **{f"before{k}": f"features.{3 * k - 1}:input" for k in (1, 2, 3)},
        "pooled": "classifier:input",
    }

    def __init__(self, num_classes: int, width: int) -> None:
        """Builds for `num_classes`; the convolutions have width, 2·width and 2·width channels."""
        super().__init__()
        widths = (1, width, 2 * width, 2 * width)
        layers: list[nn.Module] = []
        for stage, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            stride = 2 if stage == 1 else 1
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, K] of images [N, 1, 8, 8]."""
        logits: Tensor = self.classifier(torch.flatten(self.features(images).mean((2, 3)), 1))
        return logits


@MODELS.register
def digits_teacher(num_classes: int = 10) -> nn.Module:
    """The wide network, 56,554 parameters at ten classes."""
    return DigitsCNN(num_classes, width=32)


@MODELS.register
def digits_student(num_classes: int = 10) -> nn.Module:
    """The narrow network, 1,030 parameters at ten classes."""
    return DigitsCNN(num_classes, width=4)
