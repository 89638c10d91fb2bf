"""Augmentation policies for one image of bytes, through torchvision's v2 transforms."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ctkd.data.decoding import RandomCrop
from ctkd.seeds import seed_of

Policy = Literal["none", "randaugment", "autoaugment", "trivialaugment"]


@dataclass(frozen=True)
class AugmentedCrop:
    """A random crop, then a policy; a view's number decides both.

    Attributes:
        operations, magnitude: of RandAugment (Cubuk et al., arXiv 1909.13719), as torchvision
            counts them: the magnitude is one of 31.
    """

    crop: RandomCrop
    policy: Policy
    operations: int = 2
    magnitude: int = 9

    @property
    def size(self) -> int:
        """The side of the square."""
        return self.crop.size

    def __call__(self, pixels: Tensor, view: int) -> Tensor:
        """Pixels [3, H, W] -> [3, size, size], uint8."""
        cropped = self.crop(pixels, view)
        transform = transform_of(self.policy, self.operations, self.magnitude)
        # torchvision draws from the global generator of the CPU: its state is restored.
        state = torch.random.get_rng_state()
        torch.default_generator.manual_seed(seed_of("policy", view))
        changed = transform(cropped)
        torch.random.set_rng_state(state)
        return changed


@functools.cache
def transform_of(policy: Policy, operations: int, magnitude: int) -> Callable[[Tensor], Tensor]:
    """The transform of a policy in torchvision, made once in each process."""
    from torchvision.transforms import v2

    made: Callable[[Tensor], Tensor] = {
        "randaugment": lambda: v2.RandAugment(operations, magnitude),
        "autoaugment": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET),
        "trivialaugment": lambda: v2.TrivialAugmentWide(),
    }[policy]()
    return made
