"""AutoAugment on batches of bytes, with the policy found on CIFAR-10.

Source: Cubuk et al., arXiv 1805.09501, table 7.
"""

import torch
from torch import Tensor

from ctkd.data.rand_augment import FUNCTIONS, OPERATIONS, operate

# A line is a sub-policy of two operations, each with its probability and its level from 0 to 9.
POLICY = """
    Invert 0.1 0, Contrast 0.2 6
    Rotate 0.7 2, TranslateX 0.3 9
    Sharpness 0.8 1, Sharpness 0.9 3
    ShearY 0.5 8, TranslateY 0.7 9
    AutoContrast 0.5 0, Equalize 0.9 0
    ShearY 0.2 7, Posterize 0.3 7
    Color 0.4 3, Brightness 0.6 7
    Sharpness 0.3 9, Brightness 0.7 9
    Equalize 0.6 0, Equalize 0.5 0
    Contrast 0.6 7, Sharpness 0.6 5
    Color 0.7 7, TranslateX 0.5 8
    Equalize 0.3 0, AutoContrast 0.4 0
    TranslateY 0.4 3, Sharpness 0.2 6
    Brightness 0.9 6, Color 0.2 8
    Solarize 0.5 2, Invert 0.0 0
    Equalize 0.2 0, AutoContrast 0.6 0
    Equalize 0.2 0, Equalize 0.6 0
    Color 0.9 9, Equalize 0.6 0
    AutoContrast 0.8 0, Solarize 0.2 8
    Brightness 0.1 3, Color 0.7 0
    Solarize 0.4 5, AutoContrast 0.9 0
    TranslateY 0.9 9, TranslateY 0.7 9
    AutoContrast 0.9 0, Solarize 0.8 3
    Equalize 0.8 0, Invert 0.1 0
    TranslateY 0.7 9, AutoContrast 0.9 0
"""
# name -> (magnitude without effect, its change at level 9, whether the change has a random sign)
RANGES = {
    **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), (1.0, 0.9, True)),
    **dict.fromkeys(("ShearX", "ShearY"), (0.0, 0.3, True)),
    **dict.fromkeys(("TranslateX", "TranslateY"), (0.0, 150 / 331, True)),
    "Rotate": (0.0, 30.0, True),
    "Posterize": (8.0, -4.0, False),
    "Solarize": (256.0, -256.0, False),
    **dict.fromkeys(("AutoContrast", "Equalize", "Identity", "Invert"), (0.0, 0.0, False)),
}


def invert(images: Tensor, _: Tensor) -> Tensor:
    """255 minus each byte."""
    return 255 - images


NAMES = [*OPERATIONS, "Invert"]
WITH_INVERT = [*FUNCTIONS, invert]


class AutoAugment:
    """One of 25 sub-policies for each image: two operations, each with its probability.

    Attributes:
        numbers: the number of random numbers in [0, 1) that each image needs.
    """

    numbers = 5

    def __init__(self) -> None:
        """Computes tables: index, probability and range of the operations of each sub-policy."""
        lines = [line.split(",") for line in POLICY.strip().splitlines()]
        parts = [[part.split() for part in line] for line in lines]
        self._operations = torch.tensor([[NAMES.index(name) for name, *_ in p] for p in parts])
        self._shares = torch.tensor([[float(share) for _, share, _ in p] for p in parts])
        self._magnitudes = torch.tensor([[_range(n, int(k)) for n, _, k in p] for p in parts])

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Bytes [B, C, H, W], C 1 or 3, and numbers [B, 5] on the CPU -> bytes of that shape."""
        chosen = (numbers[:, 0] * len(self._operations)).long()
        identity = NAMES.index("Identity")
        for k in range(2):
            acts, negative = numbers[:, 1 + k] < self._shares[chosen, k], numbers[:, 3 + k] < 0.5
            which = torch.where(acts, self._operations[chosen, k], identity)
            low, high = self._magnitudes[chosen, k].unbind(1)
            images = operate(images, which, torch.where(negative, low, high), WITH_INVERT)
        return images


def _range(name: str, level: int) -> tuple[float, float]:
    """The two magnitudes of a level, one for each sign of the change."""
    neutral, change, signed = RANGES[name]
    step = change * level / 9
    if name == "Posterize":
        step = float(round(step))
    return (neutral - step if signed else neutral + step), neutral + step
