"""Augmentation by discrete views: an integer selects the crop and flip of a sample.

The number of views of a sample is finite, so a teacher's logits can be cached per (image, view).
A view is drawn from (seed, epoch, index), so methods with the same seed see the same pixels.
"""

import torch
from torch import Tensor

from ctkd.seeds import generator


class CropFlip:
    """A crop of the original size out of the zero-padded image, and optionally a horizontal flip.

    With padding p, view v is the crop at row v // (2p + 1) and column v mod (2p + 1) of the padded
    image; views from (2p + 1)² on are the same crops, mirrored. With p = 4 and the flip, these are
    the 162 views of the usual CIFAR transforms, with equal probabilities.
    """

    def __init__(self, padding: int, flip: bool) -> None:
        """Takes the padding in pixels on each side, and whether mirrored views exist."""
        self.padding = padding
        self.crops = (2 * padding + 1) ** 2
        self.count = self.crops * (2 if flip else 1)
        self.identity = padding * (2 * padding + 1) + padding  # the center crop, not mirrored

    def draw(self, size: int, *names: int | str) -> Tensor:
        """The views [size] of a data set, drawn uniformly; `names` name the random stream."""
        return torch.randint(0, self.count, (size,), generator=generator(*names))

    def pad(self, images: Tensor) -> Tensor:
        """Images [N, H, W, C] with the border of zeros that `take` needs, [N, H+2p, W+2p, C]."""
        p = self.padding
        return torch.nn.functional.pad(images, (0, 0, p, p, p, p))

    def take(self, padded: Tensor, indices: Tensor, views: Tensor) -> Tensor:
        """The views [B] of the images at `indices` [B], as bytes [B, C, H, W], channels last.

        One gather does crop and flip together; `padded` is the result of `pad`.
        """
        height, width = padded.shape[1] - 2 * self.padding, padded.shape[2] - 2 * self.padding
        side = 2 * self.padding + 1
        crop = views % self.crops
        rows = torch.arange(height, device=padded.device) + (crop // side)[:, None]
        columns = torch.arange(width, device=padded.device).expand(len(views), width)
        mirrored = (views >= self.crops)[:, None]
        columns = torch.where(mirrored, width - 1 - columns, columns) + (crop % side)[:, None]
        batch = padded[indices[:, None, None], rows[:, :, None], columns[:, None, :]]
        return batch.permute(0, 3, 1, 2)
