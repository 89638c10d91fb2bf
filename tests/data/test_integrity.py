"""The check of image data sets: every wrong input gives one message, with index and value."""

import numpy as np
import pytest
import torch

from ctkd.data.augment import CropFlip
from ctkd.data.decoding import CenterCrop, RandomCrop
from ctkd.data.digits import Digits
from ctkd.data.from_files import FileSplits, ImageFiles, StreamedDataset
from ctkd.data.in_memory import ResidentDataset, Split, Splits
from ctkd.data.integrity import check_files, check_splits
from ctkd.errors import DataError


class Own(ResidentDataset):
    num_classes, shape = 4, (1, 3, 2)
    mean, std = (0.5,), (0.25,)
    views = CropFlip(1, flip=False)

    def load(self):
        raise NotImplementedError


class OwnFiles(StreamedDataset):
    num_classes, shape = 4, (3, 8, 8)
    mean, std = (0.5,) * 3, (0.25,) * 3
    augmentation = RandomCrop(8, (0.5, 1.0), (1.0, 1.0), flip=False)
    presentation, max_bad = CenterCrop(8, 8), 0

    def load(self):
        raise NotImplementedError


IMAGES = torch.linspace(0, 255, 54).round().to(torch.uint8).view(9, 3, 2, 1)
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0])


def labels(**changed):
    """The labels with others at some indices: labels(i5=-1)."""
    new = LABELS.clone()
    for name, value in changed.items():
        new[int(name[1:])] = value
    return new


def changed_pixel(value, dtype=torch.float32):
    images = IMAGES.to(dtype)
    images[6, 1, 1, 0] = value
    return images


WRONG = [
    (IMAGES, labels(i5=-100), "image 5 has the label -100: expected 0 to 3"),
    (IMAGES, labels(i5=-1), "image 5 has the label -1: .*Leave out the images that have no class"),
    (IMAGES, labels(i2=4, i7=9), "image 2 has the label 4: .*Out of range: 2 of 9.*in 0..9$"),
    (IMAGES, LABELS + 1, "image 3 has the label 4: .*subtract 1 from the labels of every split"),
    (IMAGES, LABELS[:8], "9 images and 8 labels: expected one label for each image"),
    (IMAGES[:0], LABELS[:0], "there are no images"),
    (IMAGES, LABELS[:, None], r"labels are int64 \[9, 1\]: .*targets\[:, 0\]"),
    (IMAGES, torch.eye(4)[LABELS], r"labels are float32 \[9, 4\]: .*one-hot labels: .*argmax"),
    (IMAGES, LABELS.int(), r"labels are int32 \[9\]: expected int64 \[9\].*targets.long"),
    (IMAGES, LABELS.double(), r"labels are float64 \[9\]: expected int64"),
    (IMAGES, LABELS.numpy(), "the labels are a ndarray: expected a tensor"),
    (IMAGES.numpy(), LABELS, "the images are a ndarray: expected a tensor"),
    (IMAGES / 255, LABELS, r"are float32 .* from 0 to 1 .*\(images \* 255\).round\(\)"),
    (IMAGES.float(), LABELS, "are float32 .*: expected bytes .*images.round"),
    (changed_pixel(float("nan")), LABELS, r"image 6 has the pixel nan"),
    (changed_pixel(-0.5), LABELS, r"image 6 has the pixel -0.5.* not normalized"),
    (changed_pixel(300, torch.int64), LABELS, r"image 6 has the pixel 300.*largest possible"),
    (IMAGES.squeeze(3), LABELS, r"\[9, 3, 2\]: .*axis of the channels is missing"),
    (IMAGES.permute(0, 3, 1, 2), LABELS, r"\[9, 1, 3, 2\]: .* = \[9, 3, 2, 1\]. The channels come"),
    (IMAGES[:, :, :1], LABELS, r"uint8 \[9, 3, 1, 1\]: expected .* = \[9, 3, 2, 1\]"),
    (torch.tensor(0, dtype=torch.uint8), LABELS, r"the images are uint8 \[\]"),
]


@pytest.mark.parametrize("name", ["train", "validation", "test"])
@pytest.mark.parametrize(("images", "targets", "message"), WRONG)
def test_a_wrong_split_in_memory(name, images, targets, message):
    good = Split(IMAGES, LABELS)
    splits = {"train": good, "validation": good, "test": good, name: Split(images, targets)}
    with pytest.raises(DataError, match=rf"^Own, {name} split: .*{message}"):
        check_splits(Own(), Splits(**splits))


def test_a_right_split_passes_with_few_images_and_few_classes():
    one = Split(IMAGES[:1], torch.tensor([3]))
    check_splits(Own(), Splits(one, Split(IMAGES, LABELS)))
    check_splits(Digits(validation=30), Digits(validation=30).load())


@pytest.mark.parametrize("name", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, -1, 2], "/r/b.png has the label -1: expected 0 to 3"),
        ([0, 1, 4], "/r/c.png has the label 4"),
        ([1, 2, 4], "seem to be counted from 1"),
        ([0, 1], "3 images and 2 labels"),
    ],
)
def test_a_wrong_list_of_files(name, targets, message):
    good = ImageFiles.of("/r", ["a.png"], [3])
    wrong = ImageFiles.of("/r", ["a.png", "b.png", "c.png"], targets)
    check_files(OwnFiles(), FileSplits(good, good, good))
    splits = {"train": good, "validation": good, "test": good, name: wrong}
    with pytest.raises(DataError, match=f"^OwnFiles, {name} split: .*{message}"):
        check_files(OwnFiles(), FileSplits(**splits))


def test_an_empty_list_of_files():
    good, empty = ImageFiles.of("/r", ["a.png"], [3]), ImageFiles.of("/r", [], [])
    with pytest.raises(DataError, match="test split: there are no images"):
        check_files(OwnFiles(), FileSplits(good, empty))


@pytest.mark.parametrize("targets", [[0.0, 0.7], np.eye(2), ["0", "1"]])
def test_labels_of_files_are_never_rounded(targets):
    with pytest.raises(
        DataError, match="the labels of the images in /r are .*: expected one whole"
    ):
        ImageFiles.of("/r", ["a.png", "b.png"], targets)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_one_mean_and_deviation_for_each_channel(name):
    own, files, good = Own(), OwnFiles(), ImageFiles.of("/r", ["a.png"], [3])
    for dataset in (own, files):
        setattr(dataset, name, (0.5, 0.5))
    with pytest.raises(DataError, match=f"Own: {name} has 2 values: expected 1"):
        check_splits(own, Splits(Split(IMAGES, LABELS), Split(IMAGES, LABELS)))
    with pytest.raises(DataError, match=f"OwnFiles: {name} has 2 values: expected 3"):
        check_files(files, FileSplits(good, good))
