"""Mixup, CutMix and random erasing on batches; each image has random numbers of its own.

The numbers are in [0, 1), a function of (seed, epoch, index). So an image changes in the same way
for any number of workers, ranks and accumulated parts.
"""

import math

import torch
from torch import Tensor

QUANTILES = 2**12  # of the Beta distribution, in a table: its inverse has no closed form
AREA, LOG_RATIO = (0.02, 1 / 3), math.log(3.3)  # of an erased rectangle, as in torchvision


class Mixing:
    """λ · image + (1 − λ) · partner with λ ~ Beta(α, α), or the partner's rectangle of that area.

    Mixup: Zhang et al., arXiv 1710.09412; CutMix: Yun et al., arXiv 1905.04899.
    """

    numbers = 5

    def __init__(self, mixup: float, cutmix: float, share: float, device: torch.device) -> None:
        """Takes α of Mixup and of CutMix (0 turns it off), and the share of images to mix.

        If both are above 0, each of the two mixes half of these images.
        """
        from scipy.special import betaincinv

        middles = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
        tables = [
            torch.from_numpy(betaincinv(alpha or 1.0, alpha or 1.0, middles.numpy()))
            for alpha in (mixup, cutmix)
        ]
        self._quantiles = torch.stack(tables).float().to(device)
        self._cut_share = 0.5 if mixup and cutmix else float(cutmix > 0)
        self._share = share

    def __call__(self, images: Tensor, partners: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes images [B, C, H, W] with partners of the same shape, by numbers [B, 5].

        Returns:
            The mixed images, and the share of each that comes from the image itself, [B].
        """
        cuts = (numbers[:, 0] < self._cut_share).long()
        quantile = (numbers[:, 1] * QUANTILES).long()
        own = self._quantiles[cuts, quantile]
        own = torch.where(numbers[:, 2] < self._share, own, 1.0)
        height, width = images.shape[2:]
        side = (1 - own).sqrt()
        inside, area = rectangle(
            height, width, side * height, side * width, numbers[:, 3:5], clipped=True
        )
        cut, blend = inside[:, None], own[:, None, None, None]
        mixed = torch.where(cut, partners, images)
        blended = torch.lerp(partners, images, blend)
        chosen = (cuts > 0)[:, None, None, None]
        # An image that is not mixed keeps its bits.
        blended = torch.where(blend == 1.0, images, blended)
        own = torch.where(cuts > 0, 1 - area / (height * width), own)
        return torch.where(chosen, mixed, blended), own


def soft_targets(
    targets: Tensor, partners: Tensor, own: Tensor, classes: int, smoothing: float
) -> Tensor:
    """Class probabilities [B, C]: `own` of the target, the rest of the partner's, then smoothed.

    With smoothing ε they are (1 − ε) · p + ε / C (Szegedy et al., arXiv 1512.00567).
    """
    soft = torch.zeros(len(targets), classes, device=targets.device)
    soft.scatter_add_(1, targets[:, None], own[:, None])
    soft.scatter_add_(1, partners[:, None], 1 - own[:, None])
    return soft * (1 - smoothing) + smoothing / classes


def erase(images: Tensor, numbers: Tensor, share: float) -> Tensor:
    """A rectangle of zeros over a share of normalized images (Zhong et al., arXiv 1708.04896).

    Its area is 2 % to 33 % of the image and its sides' ratio 0.3 to 3.3; a side longer
    than the image is cut. `numbers` is [B, 5].
    """
    height, width = images.shape[2:]
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * numbers[:, 1])
    ratio = torch.exp(LOG_RATIO * (2 * numbers[:, 2] - 1))
    sides = ((area * ratio).sqrt(), (area / ratio).sqrt())
    inside, _ = rectangle(height, width, *sides, numbers[:, 3:5], clipped=False)
    chosen = (numbers[:, 0] < share)[:, None, None]
    return images.masked_fill((inside & chosen)[:, None], 0.0)


def rectangle(
    height: int, width: int, rows: Tensor, columns: Tensor, center: Tensor, *, clipped: bool
) -> tuple[Tensor, Tensor]:
    """Rectangles of `rows` × `columns` pixels [B] in an image, at `center` [B, 2] in [0, 1).

    `clipped`: the center is uniform in the image and the rectangle may be cut off, as in CutMix.
    Otherwise the rectangle is uniform among those inside.

    Returns:
        The pixels inside [B, height, width], and their number [B].
    """
    spans = []
    for size, side, at in ((height, rows, center[:, 0]), (width, columns, center[:, 1])):
        side = side.round().clamp(0, size)
        first = (at * size - side / 2).round() if clipped else (at * (size - side + 1)).floor()
        pixels = torch.arange(size, device=side.device)
        spans.append((pixels >= first[:, None]) & (pixels < (first + side)[:, None]))
    area = spans[0].sum(1) * spans[1].sum(1)
    return spans[0][:, :, None] & spans[1][:, None, :], area
