"""Augmentation of training images beyond crops and flips: its settings, and its use in a batch."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctkd.checks import expect, finite
from ctkd.data.auto_augment import AutoAugment
from ctkd.data.mixing import Mixing, erase, soft_targets
from ctkd.data.pixel_policy import Policy
from ctkd.data.rand_augment import RandAugment
from ctkd.data.view_numbers import numbers_of
from ctkd.engine.config.settings import PARTS
from ctkd.engine.distributed.world import World
from ctkd.errors import ConfigError
from ctkd.losses.features.feature_loss import FeatureLoss
from ctkd.losses.two_views import needs_strong_view

CODES = 2**40  # numbers that tell augmented views of one crop apart
ERASED = 5  # the first numbers of a view decide on erasing, the next on mixing, then the policy's
POLICY_STARTS = ERASED + Mixing.numbers


@PARTS.register
@dataclass(frozen=True)
class Augmentation:
    """The augmentation of training images on top of the data set's views; off by default.

    All random numbers are functions of (seed, epoch, index). The teacher sees what the student
    sees, so that its rows are not remembered.

    Attributes:
        policy: "randaugment", "autoaugment" or "trivialaugment" (one operation), for the pixels of
            each image: torchvision's for image files, with AutoAugment's policy for ImageNet.
            Images in memory have the operations and ranges of `ctkd.data.rand_augment`, and
            AutoAugment's policy for CIFAR-10.
        operations, magnitude: of RandAugment; in memory every magnitude is drawn.
        erasing: the share of images of which a rectangle is erased.
        mixup, cutmix: α of the Beta distribution, 0 for none. An image is mixed with the one half
            a batch away, and its target becomes two classes with their shares.
        mixed: the share of images that are mixed.
        label_smoothing: the share of the target that is spread over all classes.
    """

    policy: Policy = "none"
    operations: int = 2
    magnitude: int = 9
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixed: float = 1.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            fine = finite(value) and value >= 0
            expect(fine, "Augmentation", name, value, "a number of 0 or more")
        for name in ("erasing", "mixed", "label_smoothing"):
            value = getattr(self, name)
            fine = finite(value) and 0 <= value <= 1
            expect(fine, "Augmentation", name, value, "a number from 0 to 1")
        expect(self.operations >= 1, "Augmentation", "operations", self.operations, "1 or more")
        fine = 0 <= self.magnitude <= 30
        expect(fine, "Augmentation", "magnitude", self.magnitude, "a whole number from 0 to 30")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others."""
        return self.mixed > 0 and (self.mixup > 0 or self.cutmix > 0)

    @property
    def softens(self) -> bool:
        """Whether targets are class probabilities, instead of classes."""
        return self.mixes or self.label_smoothing > 0

    @property
    def acts(self) -> bool:
        """Whether a view is more than a crop and a flip."""
        return self.mixes or self.erasing > 0 or self.policy != "none"


UNCHANGED = Augmentation()


class Augmenter:
    """The part of an augmentation that works on batches.

    Attributes:
        policy: for images in memory; None for none.
    """

    def __init__(self, settings: Augmentation, num_classes: int, device: torch.device) -> None:
        """Computes the tables."""
        self.settings, self._classes = settings, num_classes
        mixing = (settings.mixup, settings.cutmix, settings.mixed)
        self.policy = _policy(settings)
        self._mix = Mixing(*mixing, device) if settings.mixes else None

    def erased(self, images: Tensor, views: Tensor) -> Tensor:
        """Images with erased rectangles; views [B] are the whole views, codes included."""
        if not self.settings.erasing:
            return images
        return erase(images, numbers_of(views, ERASED), self.settings.erasing)

    def mixed(
        self, images: Tensor, targets: Tensor, views: Tensor, others: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a step, from its images and classes.

        `others` are the partners' images and classes; None where they are half a batch away.
        """
        if not self.settings.softens:
            return images, targets
        own, classes = torch.ones(len(targets), device=targets.device), targets
        if self._mix is not None:
            numbers = numbers_of(views, ERASED + Mixing.numbers)[:, ERASED:]
            shift = -(len(images) // 2)
            partners, classes = others or (images.roll(shift, 0), targets.roll(shift, 0))
            images, own = self._mix(images, partners, numbers)
        smoothing = self.settings.label_smoothing
        return images, soft_targets(targets, classes, own, self._classes, smoothing)


def _policy(settings: Augmentation) -> RandAugment | AutoAugment | None:
    """What is done to the pixels of images in memory."""
    if settings.policy == "none":
        return None
    if settings.policy == "autoaugment":
        return AutoAugment()
    steps = settings.operations if settings.policy == "randaugment" else 1
    return RandAugment(steps, 0.0, torch.zeros(1, dtype=torch.uint8))


def partners_of(indices: Tensor, world: World) -> Tensor | None:
    """The indices of the partners of this rank's images, from the indices of a whole step.

    An image's partner is half a step later, cyclically. None where all partners of a rank's images
    are the rank's own, half of its batch later: with one rank, or an even share for each.
    """
    if world.size == 1 or len(indices) % (2 * world.size) == 0:
        return None
    return world.shard(indices.roll(-(len(indices) // 2)))


def check_augmentation(
    settings: object, objective: object, features: Iterable[FeatureLoss]
) -> None:
    """Raises ConfigError where an augmentation does not fit the losses."""
    if not isinstance(settings, Augmentation):
        return
    name = type(objective).__name__
    if settings.mixes and needs_strong_view(objective):
        raise ConfigError(
            f"the objective {name} compares two views of one image, and Augmentation mixes the "
            "images of one of them: set Augmentation.mixup and Augmentation.cutmix to 0"
        )
    need_class = [f"the objective {name}"] if getattr(objective, "needs_class", False) else []
    need_class += [loss.named for loss in features if loss.needs_class]
    if settings.softens and need_class:
        names = ("mixup", "cutmix", "label_smoothing")
        given = ", ".join(f"{n} = {v:g}" for n in names if (v := getattr(settings, n)))
        raise ConfigError(
            f"{need_class[0]} needs one class for each image, and Augmentation ({given}) makes "
            "targets of several: set these to 0, or take a loss that compares whole distributions "
            "or features alone, such as @KD or @PKT"
        )
