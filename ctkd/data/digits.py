"""scikit-learn's 1,797 handwritten digits: real images that come with a package, 8 × 8 pixels."""

import torch

from ctkd.checks import expect
from ctkd.data.augment import CropFlip
from ctkd.data.dataset import take_validation
from ctkd.data.in_memory import ResidentDataset, Split, Splits
from ctkd.registry import DATASETS
from ctkd.seeds import generator

TEST_SHARE = 5  # every fifth image of a fixed shuffle is a test image: 360 of 1,797
TRAIN_IMAGES = 1437


@DATASETS.register("digits")
class Digits(ResidentDataset):
    """1,437 training and 360 test digits (UCI optdigits), cropped by up to one pixel, not flipped.

    The split is the same for every seed. The views are crops only: a mirrored digit is not a digit.
    """

    num_classes = 10
    shape = (1, 8, 8)
    mean = (0.3052,)  # of the training images
    std = (0.3758,)

    def __init__(
        self, padding: int = 1, train_images: int | None = None, validation: int = 0
    ) -> None:
        """Takes the crop's padding in pixels, and the number of training images (None: all).

        `validation` images move from the training split to the validation split.
        """
        expect(padding >= 0, "digits", "padding", padding, "a number of pixels, 0 or more")
        fine = 0 <= validation < TRAIN_IMAGES
        expect(fine, "digits", "validation", validation, f"a number from 0 to {TRAIN_IMAGES - 1}")
        expect(
            train_images is None or 1 <= train_images <= TRAIN_IMAGES - validation,
            "digits",
            "train_images",
            train_images,
            f"None or a number from 1 to {TRAIN_IMAGES} minus the validation images",
        )
        self.views = CropFlip(padding, flip=False)
        self._train_images, self._validation = train_images, validation

    def load(self) -> Splits:
        """Reads the images from the scikit-learn package."""
        from sklearn.datasets import load_digits  # slow to import, and a dry run does not need it

        digits = load_digits()
        images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)[..., None]
        targets = torch.from_numpy(digits.target).long()
        order = torch.randperm(len(targets), generator=generator("digits", "split"))
        held_out = torch.arange(len(order)) % TEST_SHARE == 0
        test, rest = order[held_out], order[~held_out]
        train, validation = take_validation(Split(images[rest], targets[rest]), self._validation)
        kept = slice(self._train_images)
        train = Split(train.images[kept], train.targets[kept])
        return Splits(train, Split(images[test], targets[test]), validation)
