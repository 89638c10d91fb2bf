"""Checks every image data set, in memory or in files: counts, types, shapes, labels.

The engine runs it on the result of `load`, before training. Without it, a wrong label or pixel
would cause no error: PyTorch skips the label -100, and floats in [0, 1] would be divided by 255 a
second time.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctkd.data.dataset import ImageDataset, ImageSplits, T
from ctkd.data.from_files import FileSplits, StreamedDataset
from ctkd.data.in_memory import ResidentDataset, Split, Splits
from ctkd.errors import DataError
from ctkd.registry import name_of

Shape = tuple[int, int, int]


def check_splits(dataset: ResidentDataset, splits: Splits) -> None:
    """Checks a data set in memory. Raises DataError for the first error."""
    _check_channels(dataset, (1, dataset.shape[0]))  # one value serves all channels
    for name, split in _named(splits):
        owner = f"{name_of(type(dataset))}, {name} split"
        check_split(owner, split, dataset.shape, dataset.num_classes)


def check_files(dataset: StreamedDataset, splits: FileSplits) -> None:
    """Checks the lists of a data set in files; the files are not read. Raises DataError."""
    _check_channels(dataset, (dataset.shape[0],))
    for name, files in _named(splits):
        owner = f"{name_of(type(dataset))}, {name} split"
        _check_count(owner, len(files.ends), len(files.targets))
        check_labels(owner, files.targets, dataset.num_classes, files.path)


def check_split(owner: str, split: Split, shape: Shape, num_classes: int) -> None:
    """Checks images and labels in memory.

    Args:
        owner: the data set and the split, for the start of a message.
        shape: (channels, height, width) of every image.

    Raises:
        DataError: it names the value found, the value expected, and the first wrong image's index.
    """
    for name, value in (("images", split.images), ("labels", split.targets)):
        if not isinstance(value, Tensor):
            raise DataError(f"{owner}: the {name} are a {type(value).__name__}: expected a tensor")
    _check_images(owner, split.images, shape)
    labels = split.targets
    if labels.dtype != torch.int64 or labels.dim() != 1:
        raise DataError(
            f"{owner}: the labels are {_kind(labels)}: expected int64 [{len(split.images)}], one "
            f"whole number for each image{_label_hint(labels)}"
        )
    _check_count(owner, len(split.images), len(labels))
    check_labels(owner, labels.cpu().numpy(), num_classes, lambda index: f"image {index}")


def check_labels(
    owner: str, labels: np.ndarray[Any, Any], num_classes: int, name: Callable[[int], str]
) -> None:
    """Raises DataError unless all labels are in [0, num_classes).

    Args:
        name: the name of the image at an index, for the message.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong) == 0:
        return
    low, high, first = int(labels.min()), int(labels.max()), int(wrong[0])
    hint = ""
    if (low, high) == (1, num_classes):
        hint = ". The labels seem to be counted from 1: subtract 1 from the labels of every split"
    elif low < 0:
        hint = ". Leave out the images that have no class"
    raise DataError(
        f"{owner}: {name(first)} has the label {labels[first]}: expected 0 to {num_classes - 1} "
        f"(num_classes = {num_classes}). Out of range: {len(wrong):,} of {len(labels):,} labels; "
        f"they are in {low}..{high}{hint}"
    )


def _named(splits: ImageSplits[T]) -> list[tuple[str, T]]:
    named = (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
    return [(name, split) for name, split in named if split is not None]


def _check_channels(dataset: ImageDataset, counts: tuple[int, ...]) -> None:
    for name, values in (("mean", dataset.mean), ("std", dataset.std)):
        if len(values) not in counts:
            raise DataError(
                f"{name_of(type(dataset))}: {name} has {len(values)} values: expected "
                f"{dataset.shape[0]}, one for each channel of shape = {tuple(dataset.shape)}"
            )


def _check_count(owner: str, images: int, labels: int) -> None:
    if images != labels:
        raise DataError(
            f"{owner}: {images:,} images and {labels:,} labels: expected one label for each image"
        )
    if images == 0:
        raise DataError(f"{owner}: there are no images: expected at least one")


def _check_images(owner: str, images: Tensor, shape: Shape) -> None:
    if images.dtype != torch.uint8:
        raise DataError(
            f"{owner}: the images are {_kind(images)}{_pixel_range(images)}: expected bytes "
            f"(uint8) from 0 to 255{_pixel_hint(images)}"
        )
    channels, height, width = shape
    if images.dim() == 4 and tuple(images.shape[1:]) == (height, width, channels):
        return
    hint = ""
    if tuple(images.shape[1:]) == shape:
        hint = ". The channels come first here: images.permute(0, 2, 3, 1)"
    elif channels == 1 and tuple(images.shape[1:]) == (height, width):
        hint = ". The axis of the channels is missing: images[..., None]"
    raise DataError(
        f"{owner}: the images are {_kind(images)}: expected [images, height, width, channels] = "
        f"[{len(images) if images.dim() else 0}, {height}, {width}, {channels}]{hint}"
    )


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _pixel_range(images: Tensor) -> str:
    """The range of pixels that are not bytes, and the first that is not a whole number."""
    if images.dim() == 0 or images.numel() == 0:
        return ""
    values = images.float().reshape(len(images), -1)
    text = f" from {values.min():g} to {values.max():g}"
    misfits = ((values != values.round()) | (values < 0) | ~(values <= 255)).nonzero()
    if len(misfits):
        index, pixel = misfits[0].tolist()
        text += f" (image {index} has the pixel {values[index, pixel]:g})"
    return text


def _pixel_hint(images: Tensor) -> str:
    if images.numel() == 0:
        return ""
    low, high = float(images.float().min()), float(images.float().max())
    if not low >= 0:
        return (
            ". Give pixels that are not normalized: the mean and std of the data set normalize them"
        )
    if high <= 1:
        return ". Convert them: (images * 255).round().to(torch.uint8)"
    if high <= 255:
        return ". Convert them: images.round().to(torch.uint8)"
    return ". Convert them: divide by the largest possible value, multiply by 255, round"


def _label_hint(labels: Tensor) -> str:
    if labels.dim() == 2 and labels.shape[1] == 1:
        return ". Remove the second axis: targets[:, 0].long()"
    if labels.dim() == 2:
        return ". For one-hot labels: targets.argmax(1)"
    return ". Convert them: targets.long()" if labels.dim() == 1 else ""
