"""ShuffleNet V1 and V2 for 32x32 images (arXiv 1707.01083 and 1807.11164).

Both begin with a 1x1 convolution to 24 channels at 32x32 pixels; each of three stages halves the
side. All weights start at PyTorch's default, He's uniform distribution with a = sqrt(5), as in the
published runs. Keys as in the published files.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from ctkd.models.blocks import classifier, conv, pool
from ctkd.registry import MODELS

STEM = 24
GROUPS = 3  # V1
WIDTHS_V1, BLOCKS_V1 = (240, 480, 960), (4, 8, 4)
WIDTHS_V2, BLOCKS_V2, HEAD_V2 = (116, 232, 464), (4, 8, 4), 1024
FEATURE_PATHS = {
    "stem": "layer1:input",
    **{f"stage{k}": f"layer{k}" for k in (1, 2, 3)},
    "pooled": "linear:input",
}


def shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Interleaves the channels of the groups, so that the next grouped layer sees all groups."""
    return torch.unflatten(x, 1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class Unit(nn.Module):
    """V1: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, plus a shortcut.

    With a stride the shortcut is average-pooled and concatenated, otherwise it is added:
    [N, inputs, H, W] -> [N, outputs, H/s, W/s].
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        computed = outputs - inputs if stride == 2 else outputs  # the rest is the shortcut itself
        inner = computed // 4
        self.groups = 1 if inputs == STEM else GROUPS  # the stem has too few channels to group
        self.conv1 = conv(inputs, inner, 1, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride, groups=inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, computed, 1, groups=GROUPS)
        self.bn3 = nn.BatchNorm2d(computed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The unit's output for `x`."""
        inner = shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        # The paper has no ReLU after the depthwise convolution; the published networks have one.
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(inner)))))
        if self.stride == 1:
            return F.relu(out + x)
        return F.relu(torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], dim=1))


class ShuffleNetV1(nn.Module):
    """Three stages of `Unit`s."""

    feature_paths: ClassVar = FEATURE_PATHS

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, STEM, 1)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1, self.layer2, self.layer3 = map(
            self._stage, (STEM, *WIDTHS_V1), WIDTHS_V1, BLOCKS_V1
        )
        self.linear = classifier(WIDTHS_V1[-1], num_classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
        rest = (Unit(outputs, outputs, 1) for _ in range(blocks - 1))
        return nn.Sequential(Unit(inputs, outputs, 2), *rest)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] of images [N, 3, 32, 32]."""
        x = F.relu(self.bn1(self.conv1(images)))
        logits: torch.Tensor = self.linear(pool(self.layer3(self.layer2(self.layer1(x)))))
        return logits


class SplitUnit(nn.Module):
    """V2: keeps half of the channels and computes the other half; the shape stays the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = conv(half, half, 3, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The unit's output for `x`."""
        passed, computed = x.chunk(2, dim=1)
        computed = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(computed)))))
        computed = F.relu(self.bn3(self.conv3(computed)))
        return shuffle(torch.cat([passed, computed], dim=1), 2)


class DownUnit(nn.Module):
    """V2: computes both branches with stride 2, [N, inputs, H, W] -> [N, outputs, H/2, W/2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = conv(inputs, inputs, 3, 2, groups=inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = conv(inputs, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(inputs, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = conv(half, half, 3, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The unit's output for `x`."""
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)))))
        right = F.relu(self.bn5(self.conv5(right)))
        return shuffle(torch.cat([left, right], dim=1), 2)


class ShuffleNetV2(nn.Module):
    """Three stages, each a `DownUnit` and then `SplitUnit`s, and a final 1x1 convolution."""

    feature_paths: ClassVar = FEATURE_PATHS

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, STEM, 1)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1, self.layer2, self.layer3 = map(
            self._stage, (STEM, *WIDTHS_V2), WIDTHS_V2, BLOCKS_V2
        )
        self.conv2 = conv(WIDTHS_V2[-1], HEAD_V2, 1)
        self.bn2 = nn.BatchNorm2d(HEAD_V2)
        self.linear = classifier(HEAD_V2, num_classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
        rest = (SplitUnit(outputs) for _ in range(blocks - 1))
        return nn.Sequential(DownUnit(inputs, outputs), *rest)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [N, K] of images [N, 3, 32, 32]."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.linear(pool(F.relu(self.bn2(self.conv2(x)))))
        return logits


@MODELS.register
def ShuffleV1(num_classes: int = 100) -> nn.Module:  # noqa: N802  (the published tables' spelling)
    """ShuffleNet V1 with three groups."""
    return ShuffleNetV1(num_classes)


@MODELS.register
def ShuffleV2(num_classes: int = 100) -> nn.Module:  # noqa: N802  (the published tables' spelling)
    """ShuffleNet V2, 1x."""
    return ShuffleNetV2(num_classes)
