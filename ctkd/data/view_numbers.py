"""Random numbers of a view, computed on the device."""

import torch
from torch import Tensor

# Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64), as
# signed 64-bit numbers; products wrap around.
GOLDEN, FIRST, SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685


def numbers_of(views: Tensor, count: int) -> Tensor:
    """Numbers in [0, 1), [B, count], float32: a function of each view alone, equal on all devices.

    No generator is used, so that a captured CUDA graph computes them from its views.
    """
    x = views[:, None] + GOLDEN * torch.arange(1, count + 1, device=views.device)
    x = (x ^ _shifted(x, 30)) * FIRST
    x = (x ^ _shifted(x, 27)) * SECOND
    x = x ^ _shifted(x, 31)
    return _shifted(x, 40).float() / 2**24


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A right shift that fills with zeros; torch's fills with the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
