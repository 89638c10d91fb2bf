"""RandAugment with Cutout, on batches of bytes: each image has random numbers of its own.

The operations and their ranges are those of the public code of MLKD and CRLD, which took them from
FixMatch (Sohn et al. 2020). Its "RandAugment(2, 10)" draws each magnitude at random and ignores the
10 (Cubuk et al., arXiv 1909.13719, have one magnitude for all). Brightness, color, contrast and
sharpness are only lowered.

torchvision's transforms take one magnitude for a whole batch. Here the images of a batch are sorted
by operation, and each operation runs once, on its images, with a magnitude for each. The result
for an image has the same bits in any batch.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, amax, amin

Operation = Callable[[Tensor, Tensor], Tensor]  # bytes [n, C, H, W], magnitudes [n, 1, 1, 1]
WEIGHTS = (19595, 38470, 7471)  # of red, green and blue in a gray value, over 2¹⁶, as in PIL


class RandAugment:
    """`operations` random operations on each image, then Cutout.

    Attributes:
        numbers: the number of random numbers in [0, 1) that each image needs.
    """

    def __init__(self, operations: int, cutout: float, color: Tensor) -> None:
        """Takes the number of operations in a row and the settings of Cutout.

        Args:
            cutout: the largest side of Cutout's square, as a share of the image's; 0 for none.
            color: of the square, [C] bytes.
        """
        self.operations, self.cutout, self.color = operations, cutout, color
        self.numbers = 2 * operations + 3

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Bytes [B, C, H, W], C 1 or 3, and numbers [B, `numbers`] -> bytes of the same shape.

        The numbers are on the CPU, so that sorting the images does not wait for their device.
        """
        for k in range(self.operations):
            images = _apply(images, numbers[:, 2 * k], numbers[:, 2 * k + 1])
        if not self.cutout:
            return images
        cut = numbers[:, -3:].to(images.device, non_blocking=True)
        return cut_out(images, self.cutout * cut[:, 0], cut[:, 1:], self.color)


def _apply(images: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
    """One operation on each image: `chosen` selects it, `shares` the magnitude in its range."""
    which = (chosen * len(OPERATIONS)).long()
    low, width = LOW_AND_WIDTH[which].unbind(1)
    return operate(images, which, low + width * shares, FUNCTIONS)


def operate(
    images: Tensor, which: Tensor, magnitudes: Tensor, operations: Sequence[Operation]
) -> Tensor:
    """The operation `which` [B] on each image, with its magnitude [B]; both are on the CPU."""
    order = which.argsort(stable=True)
    counts = which.bincount(minlength=len(operations)).tolist()
    magnitudes = magnitudes[order].to(images.device, non_blocking=True).view(-1, 1, 1, 1)
    order = order.to(images.device, non_blocking=True)
    given, sizes = torch.split(images[order], counts), torch.split(magnitudes, counts)
    parts = zip(operations, given, sizes, strict=True)
    changed = [operation(part, size) for operation, part, size in parts if len(part)]
    return torch.empty_like(images).index_copy_(0, order, torch.cat(changed))


def identity(images: Tensor, _: Tensor) -> Tensor:
    """The images as they are."""
    return images


def auto_contrast(images: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched to 0 … 255; a channel of one value stays as it is."""
    low, high = (side(images, dim=(2, 3), keepdim=True).double() for side in (amin, amax))
    scale = 255 / (high - low).clamp_min(1)
    stretched = (images * scale - low * scale).clamp_(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Equalizes the histogram of each channel."""
    from torchvision.transforms.v2 import functional as F

    flat: Tensor = F.equalize(images)
    return flat


def brightness(images: Tensor, share: Tensor) -> Tensor:
    """Towards black: share · image."""
    return _blend(images, torch.zeros((), device=images.device), share)


def color(images: Tensor, share: Tensor) -> Tensor:
    """Towards gray; an image of one channel stays as it is."""
    return _blend(images, _gray(images), share) if images.shape[1] == 3 else images


def contrast(images: Tensor, share: Tensor) -> Tensor:
    """Towards the mean gray of the image."""
    # A sum of whole numbers in float64 is exact, in any order.
    mean = _gray(images).double().mean(dim=(1, 2, 3), keepdim=True)
    return _blend(images, (mean + 0.5).floor().float(), share)


def sharpness(images: Tensor, share: Tensor) -> Tensor:
    """Towards a smoothed image: 5 times the pixel and once each of its 8 neighbors, over 13.

    The border is not smoothed.
    """
    height, width = images.shape[2:]
    if min(height, width) < 3:
        return images
    smooth, inner = images.float(), images[:, :, 1:-1, 1:-1].float()
    total = 4 * inner
    for row in range(3):
        for column in range(3):
            total = total + images[:, :, row : height - 2 + row, column : width - 2 + column]
    smooth[:, :, 1:-1, 1:-1] = (total / 13).round()
    return _blend(images, smooth, share)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """The highest int(bits) bits of each byte."""
    step = torch.exp2(8 - bits.floor())
    return (images / step).floor().mul_(step).to(torch.uint8)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Bytes of `threshold` or more inverted."""
    return torch.where(images >= threshold, 255 - images, images)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Counterclockwise about the center."""
    angle = degrees.flatten().double().deg2rad()
    cosine, sine = angle.cos(), angle.sin()
    x, y = images.shape[3] / 2, images.shape[2] / 2
    rows = (cosine, -sine, x - cosine * x + sine * y), (sine, cosine, y - sine * x - cosine * y)
    return _warp(images, *rows)


def shear_x(images: Tensor, share: Tensor) -> Tensor:
    """Each row moved in proportion to its distance from the top."""
    one, zero, share = _constants(share)
    return _warp(images, (one, share, zero), (zero, one, zero))


def shear_y(images: Tensor, share: Tensor) -> Tensor:
    """Each column moved in proportion to its distance from the left side."""
    one, zero, share = _constants(share)
    return _warp(images, (one, zero, zero), (share, one, zero))


def translate_x(images: Tensor, share: Tensor) -> Tensor:
    """Moved sideways by a share of the width."""
    one, zero, share = _constants(share)
    return _warp(images, (one, zero, share * images.shape[3]), (zero, one, zero))


def translate_y(images: Tensor, share: Tensor) -> Tensor:
    """Moved up or down by a share of the height."""
    one, zero, share = _constants(share)
    return _warp(images, (one, zero, zero), (zero, one, share * images.shape[2]))


# name -> (operation, least and largest magnitude)
OPERATIONS: dict[str, tuple[Operation, float, float]] = {
    "AutoContrast": (auto_contrast, 0, 1),
    "Brightness": (brightness, 0.05, 0.95),
    "Color": (color, 0.05, 0.95),
    "Contrast": (contrast, 0.05, 0.95),
    "Equalize": (equalize, 0, 1),
    "Identity": (identity, 0, 1),
    "Posterize": (posterize, 4, 8),
    "Rotate": (rotate, -30, 30),
    "Sharpness": (sharpness, 0.05, 0.95),
    "ShearX": (shear_x, -0.3, 0.3),
    "ShearY": (shear_y, -0.3, 0.3),
    "Solarize": (solarize, 0, 256),
    "TranslateX": (translate_x, -0.3, 0.3),
    "TranslateY": (translate_y, -0.3, 0.3),
}
FUNCTIONS = [operation for operation, *_ in OPERATIONS.values()]
LOW_AND_WIDTH = torch.tensor([(low, high - low) for _, low, high in OPERATIONS.values()])


def cut_out(images: Tensor, side: Tensor, center: Tensor, color: Tensor) -> Tensor:
    """A square of one color over each image (DeVries and Taylor, arXiv 1708.04552).

    Args:
        side: [B], of the square, as a share of the width.
        center: [B, 2], its x and y as shares of width and height; the square may be cut off.
        color: [C] bytes.
    """
    height, width = images.shape[2:]
    sizes = torch.tensor([width, height]).to(images.device, non_blocking=True)
    sides = (side * width)[:, None]
    low = (center * sizes - sides / 2).clamp_min(0).floor()
    high = low + sides
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)
    columns = (x >= low[:, :1]) & (x <= high[:, :1])
    rows = (y >= low[:, 1:]) & (y <= high[:, 1:])
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, color.to(images.device).view(1, -1, 1, 1), images)


def _blend(images: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """The bytes of share · image + (1 − share) · other, rounded down."""
    return (images * share + other * (1 - share)).clamp_(0, 255).to(torch.uint8)


def _gray(images: Tensor) -> Tensor:
    """The gray values [n, 1, H, W], whole numbers in float32."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = (images[:, k : k + 1].int() * WEIGHTS[k] for k in range(3))
    return ((red + green + blue + 2**15) >> 16).float()


def _constants(share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1, 0 and the shares, each [n] in float64."""
    share = share.flatten().double()
    return torch.ones_like(share), torch.zeros_like(share), share


def _warp(images: Tensor, for_x: tuple[Tensor, ...], for_y: tuple[Tensor, ...]) -> Tensor:
    """The pixel at (x, y) is taken from (a x + b y + c, d x + e y + f); black from outside.

    (a, b, c) and (d, e, f) are [n] each; the center of the first pixel is (0.5, 0.5), and the
    nearest pixel is taken, as in PIL.
    """
    n, channels, height, width = images.shape
    x = torch.arange(width, device=images.device) + 0.5
    y = (torch.arange(height, device=images.device) + 0.5)[:, None]
    columns, rows = (
        (p.view(n, 1, 1) * x + q.view(n, 1, 1) * y + r.view(n, 1, 1)).floor().long()
        for p, q, r in (for_x, for_y)
    )
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    taken = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    flat = taken.view(n, 1, -1).expand(n, channels, -1)
    pixels = images.reshape(n, channels, -1).gather(2, flat).view(images.shape)
    return pixels * inside[:, None]
