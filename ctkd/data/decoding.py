"""Image files to bytes: decoded, cropped, resized and mirrored as uint8, never as floats.

torchvision decodes JPEGs to RGB, also those in gray or CMYK. PIL decodes the files that torchvision
refuses, and files of other formats (one of ImageNet's .JPEG files is a PNG). An EXIF orientation is
not applied, as in published pipelines: their networks were trained on the stored pixels.
"""

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ctkd.data.pictures import rgb_bytes

TRIES = 10  # attempts at a random crop before the center crop, as in Inception's code
NUMBERS = 4 * TRIES + 1


class BadImageError(Exception):
    """A file that cannot be read as an image."""


def decode(path: str) -> Tensor:
    """The pixels [3, H, W] (uint8, in channels-last order) of a file.

    Raises:
        BadImageError: the file is missing, empty, cut short, or not an image.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
        if data[:2].tolist() == [0xFF, 0xD8] and (decoder := _jpeg_decoder()):
            return decoder(torch.from_numpy(data))
    except OSError as error:
        raise BadImageError(f"{path}: {error.strerror}") from error
    except RuntimeError:
        pass  # PIL reads more kinds of JPEG, and its errors are clearer
    return _decode_with_pil(path)


@functools.cache
def _jpeg_decoder() -> Callable[[Tensor], Tensor] | None:
    """The decoder of torchvision; None in a version without one: PIL is slower."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None
    return functools.partial(decode_jpeg, mode=ImageReadMode.RGB)


def _decode_with_pil(path: str) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of broken EXIF data, which is not used
            with Image.open(path) as image:
                pixels = rgb_bytes(image)
    # PIL's readers raise nearly any error for bytes that are not an image.
    except Exception as error:
        raise BadImageError(f"{path}: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def random_crop(
    height: int,
    width: int,
    scale: Sequence[float],
    ratio: Sequence[float],
    numbers: Sequence[float],
) -> tuple[int, int, int, int]:
    """A random rectangle (top, left, height, width) of an image, as in Inception's training.

    Its share of the area is uniform in `scale`, its aspect ratio (width over height) log-uniform
    in `ratio`, its position uniform (Szegedy et al., arXiv 1409.4842). After TRIES attempts that
    do not fit, it is the largest centered rectangle of a permitted ratio.

    Args:
        numbers: 4 · TRIES numbers in [0, 1); the rectangle depends only on them.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for attempt in range(TRIES):
        share, shape, down, right = numbers[4 * attempt : 4 * attempt + 4]
        area = height * width * (scale[0] + (scale[1] - scale[0]) * share)
        aspect = math.exp(low + (high - low) * shape)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w = min(width, max(1, round(height * aspect)))
    h = min(height, max(1, round(width / aspect)))
    return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class RandomCrop:
    """A random crop, resized to a square and perhaps mirrored; the view decides both."""

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: bool

    def box(self, height: int, width: int, view: int) -> tuple[tuple[int, int, int, int], bool]:
        """The crop (top, left, height, width) of the view, and whether it is mirrored."""
        generator = torch.Generator().manual_seed(view)
        numbers = torch.rand(NUMBERS, generator=generator, dtype=torch.float64).tolist()
        crop = random_crop(height, width, self.scale, self.ratio, numbers)
        return crop, self.flip and numbers[-1] < 0.5

    def __call__(self, pixels: Tensor, view: int) -> Tensor:
        """Pixels [3, H, W] -> [3, size, size], uint8."""
        (top, left, height, width), mirrored = self.box(pixels.shape[1], pixels.shape[2], view)
        cut = pixels[:, top : top + height, left : left + width]
        resized = resize(cut, self.size, self.size)
        return resized.flip(2) if mirrored else resized


@dataclass(frozen=True)
class CenterCrop:
    """The square in the middle of the image, after its shorter side is resized to `resize`."""

    size: int
    resize: int

    def __call__(self, pixels: Tensor, view: int = 0) -> Tensor:
        """Pixels [3, H, W] -> [3, size, size], uint8; there is only one view."""
        _, height, width = pixels.shape
        short = min(height, width)
        # torchvision's rounding: the longer side down
        h, w = (self.resize * side // short for side in (height, width))
        pixels = resize(pixels, h, w)
        top, left = round((h - self.size) / 2), round((w - self.size) / 2)
        return pixels[:, top : top + self.size, left : left + self.size]


def resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """Bilinear with antialiasing, on bytes; PIL's filter except for the rounding.

    torchvision's v2 resize calls the same kernel. Input and output are in channels-last order: the
    kernel for bytes takes half the time, and batches are made without transposing.
    """
    batch = pixels[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(batch, (height, width), mode="bilinear", antialias=True)[0]
