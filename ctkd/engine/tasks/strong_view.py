"""What a method may set about the strong view: a second, strongly augmented view of each image."""

from dataclasses import dataclass

import torch

from ctkd.checks import expect
from ctkd.data.dataset import Dataset, ImageDataset
from ctkd.data.rand_augment import RandAugment
from ctkd.engine.config.settings import PARTS
from ctkd.errors import ConfigError
from ctkd.registry import name_of


@PARTS.register("StrongView", settings="method")
@dataclass(frozen=True)
class StrongViewSettings:
    """RandAugment and Cutout on a crop and flip of its own; see `ctkd.data.rand_augment`.

    Attributes:
        operations: random operations in a row; 0 leaves crop and flip.
        cutout: the largest side of Cutout's square, as a share of the image's; 0 for none.
    """

    operations: int = 2
    cutout: float = 0.5

    def __post_init__(self) -> None:
        count, share = self.operations, self.cutout
        expect(count >= 0, "StrongView", "operations", count, "a whole number of 0 or more")
        expect(0 <= share <= 1, "StrongView", "cutout", share, "a number from 0 to 1")


def check_strong_view(objective: object, dataset: Dataset) -> None:
    """Raises ConfigError where the data set has no strong view for an objective that needs one."""
    if not isinstance(dataset, ImageDataset) or dataset.shape[0] not in (1, 3):
        raise ConfigError(
            f"the objective {type(objective).__name__} compares two views of an image, one of them "
            f"strongly augmented, and the data set {name_of(type(dataset))} has no such view: "
            "expected images of 1 or 3 colors with one class each, such as @cifar100, @digits or "
            "@imagenet"
        )


def augmentation_of(settings: StrongViewSettings | None, dataset: Dataset) -> RandAugment | None:
    """What makes strong views of a data set; None without settings.

    Cutout's square has the mean color of the data set, as in the public code.
    """
    if settings is None:
        return None
    assert isinstance(dataset, ImageDataset)
    mean = torch.tensor(dataset.mean).expand(dataset.shape[0])
    color = (255 * mean).round().to(torch.uint8)
    return RandAugment(settings.operations, settings.cutout, color)
