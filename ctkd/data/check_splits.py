"""The check of a data set that was read: counts, types, and ranges of pixels and labels."""

import numpy as np
import torch
from torch import Tensor

from ctkd.data.dataset import ImageDataset
from ctkd.data.from_files import FileSplits
from ctkd.data.in_memory import Split, Splits
from ctkd.errors import DataError
from ctkd.registry import name_of


def check_splits(splits: Splits | FileSplits, dataset: ImageDataset) -> None:
    """Checks all parts of a data set before anything is trained on it.

    Raises:
        DataError: a part is empty, images or labels have another type or shape, their numbers
            differ, or a label is out of range; the message has the index and the value.
    """
    parts = {"training": splits.train, "test": splits.test, "validation": splits.validation}
    for name, part in parts.items():
        if part is None:
            continue
        where = f"{name_of(type(dataset))}: the {name} part"
        if isinstance(part, Split):
            _check_images(part.images, dataset.shape, where)
            targets = part.targets
            if targets.shape != part.images.shape[:1]:
                raise DataError(
                    f"{where} has {len(part.images)} images, and labels of shape "
                    f"{list(targets.shape)}: expected one label for each image, "
                    f"[{len(part.images)}]"
                )
        else:
            targets = torch.from_numpy(np.asarray(part.targets))
        if len(targets) == 0:
            raise DataError(f"{where} has no images: it needs at least one")
        check_labels(targets, dataset.num_classes, where)


def _check_images(images: Tensor, shape: tuple[int, int, int], where: str) -> None:
    channels, height, width = shape
    expected = f"uint8 from 0 to 255, of shape [N, {height}, {width}, {channels}]"
    if images.dtype != torch.uint8:
        values = ""
        if images.numel() and not images.is_complex():
            values = f" from {float(images.min()):g} to {float(images.max()):g}"
        advice = ""
        if images.is_floating_point() and images.numel() and float(images.max()) <= 1:
            advice = ": multiply them by 255, round them, and convert them to uint8"
        raise DataError(
            f"{where} has images of {images.dtype}{values}: expected {expected}{advice}"
        )
    if images.shape[1:] != (height, width, channels):
        raise DataError(f"{where} has images of shape {list(images.shape)}: expected {expected}")


def check_labels(targets: Tensor, num_classes: int, where: str) -> None:
    """Raises DataError unless `targets` [N] are whole numbers from 0 to num_classes - 1."""
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise DataError(f"{where} has labels of {targets.dtype}: expected whole numbers (int64)")
    wrong = ((targets < 0) | (targets >= num_classes)).nonzero().flatten()
    if not len(wrong):
        return
    index = int(wrong[0])
    value, low, high = int(targets[index]), int(targets.min()), int(targets.max())
    advice = ""
    if low == 1 and high == num_classes:
        advice = ": they seem to be counted from 1; subtract 1 from each"
    elif value < 0:
        advice = ": leave images without a class out"
    raise DataError(
        f"{where} has the label {value} at index {index} (labels are from {low} to {high}, "
        f"{len(wrong)} are out of range): expected 0 to {num_classes - 1}{advice}"
    )
