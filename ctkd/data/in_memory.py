"""Small data sets that stay on the device as bytes; batches are made there."""

import abc
import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ctkd.data.augment import CropFlip
from ctkd.data.auto_augment import AutoAugment
from ctkd.data.dataset import ImageDataset, ImageSplits, digest
from ctkd.data.rand_augment import RandAugment


@dataclass(frozen=True)
class Split:
    """Images [N, H, W, C] of bytes and their classes [N] (int64)."""

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: Tensor) -> "Split":
        """The images at the indices, in that order."""
        return Split(self.images[indices], self.targets[indices])


Splits = ImageSplits[Split]


class ResidentDataset(ImageDataset):
    """A small data set; `load` reads all of it.

    Attributes:
        views: the augmentation of the training images.
    """

    kind = "resident"
    views: CropFlip

    @abc.abstractmethod
    def load(self) -> Splits:
        """Reads the images. Raises DataError if they are missing or damaged."""


class ResidentImages:
    """A split on a device, padded once, so that one gather makes a batch of any views."""

    def __init__(self, split: Split, dataset: ResidentDataset, device: torch.device) -> None:
        """Moves `split` to `device` and pads it for the views of `dataset`."""
        self.views = dataset.views
        self.targets = split.targets.to(device)
        self._padded = self.views.pad(split.images.to(device))
        # (x/255 - mean)/std as one multiplication and one addition per byte
        std = torch.tensor(dataset.std, device=device).view(1, -1, 1, 1)
        mean = torch.tensor(dataset.mean, device=device).view(1, -1, 1, 1)
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def __len__(self) -> int:
        return len(self.targets)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that depend on every byte of the padded images."""
        return digest(self._padded)

    def batch(self, indices: Tensor, views: Tensor | None = None) -> Tensor:
        """Normalized images [B, C, H, W], float32, channels last; without views not augmented."""
        if views is None:
            views = torch.full_like(indices, self.views.identity)
        return self._normalized(self.views.take(self._padded, indices, views))

    def strong_batch(
        self, indices: Tensor, numbers: Tensor, augment: RandAugment | AutoAugment
    ) -> Tensor:
        """The strong views of images, in the format of `batch`: cropped, mirrored, augmented.

        Args:
            indices, numbers: [B] and [B, 1 + `augment.numbers`], in [0, 1), both on the CPU. The
                first number decides crop and flip.
        """
        views = (numbers[:, 0] * self.views.count).long()
        there = (tensor.to(self.targets.device, non_blocking=True) for tensor in (indices, views))
        pixels = augment(self.views.take(self._padded, *there), numbers[:, 1:])
        # Channels last, as the networks get plain views.
        lasts = pixels.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return self._normalized(lasts)

    def _normalized(self, pixels: Tensor) -> Tensor:
        return pixels.float().mul_(self._scale).add_(self._shift)
