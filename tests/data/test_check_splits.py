"""Data of one's own: what is wrong with it is found before training, with index and value."""

import numpy as np
import pytest
import torch

from ctkd.data.augment import CropFlip
from ctkd.data.digits import Digits
from ctkd.data.in_memory import ResidentDataset, Split, Splits
from ctkd.registry import DATASETS


@DATASETS.register("arrays_of_test_check_splits")
class Arrays(ResidentDataset):
    """The digits, changed by the function of the name `change`."""

    num_classes, shape = 10, (1, 8, 8)
    mean, std = (0.31,), (0.38,)

    def __init__(self, change: str = "nothing") -> None:
        self.change, self.views = change, CropFlip(0, flip=False)

    def load(self) -> Splits:
        digits = Digits(padding=0).load()
        train, test = (
            Split(s.images.clone(), s.targets.clone()) for s in (digits.train, digits.test)
        )
        return Splits(*CHANGES[self.change](Split(train.images[:321], train.targets[:321]), test))


def label(part, index, value):
    def change(train, test):
        (train if part == "train" else test).targets[index] = value
        return train, test

    return change


def train_part(make):
    return lambda train, test: (Split(*make(train.images, train.targets)), test)


CHANGES = {
    "nothing": lambda train, test: (train, test),
    "minus_100": label("train", 5, -100),
    "minus_1": label("train", 5, -1),
    "eleven": label("train", 5, 10),
    "test_minus_1": label("test", 3, -1),
    "one_based": lambda train, test: tuple(Split(s.images, s.targets + 1) for s in (train, test)),
    "floats": train_part(lambda x, y: (x / 255, y)),
    "mismatch": train_part(lambda x, y: (x, y[:320])),
    "one_hot": train_part(lambda x, y: (x, torch.nn.functional.one_hot(y, 10))),
    "column": train_part(lambda x, y: (x, y[:, None])),
    "float_labels": train_part(lambda x, y: (x, y.double())),
    "no_channel": train_part(lambda x, y: (x[..., 0], y)),
    "empty_train": train_part(lambda x, y: (x[:0], y[:0])),
    "empty_test": lambda train, test: (train, Split(test.images[:0], test.targets[:0])),
}


@pytest.fixture
def run(command):
    def call(change, *more):
        return command(
            "--gin_file=gin/digits/vanilla.gin",
            "--gin_param=Recipe.dataset = @arrays_of_test_check_splits",
            f"--gin_param=arrays_of_test_check_splits.change = '{change}'",
            "--gin_param=epochs = 1",
            "--gin_param=Runtime.tensorboard = False",
            "--workdir=run",
            *more,
        )

    return call


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("minus_100", "the training part has the label -100 at index 5 (labels are from -100 to 9"),
        ("minus_1", "the label -1 at index 5 (labels are from -1 to 9, 1 are out of range)"),
        ("eleven", "the label 10 at index 5 (labels are from 0 to 10, 1 are out of range)"),
        ("test_minus_1", "the test part has the label -1 at index 3"),
        ("one_based", "they seem to be counted from 1; subtract 1 from each"),
        ("floats", "images of torch.float32 from 0 to 1: expected uint8 from 0 to 255"),
        ("mismatch", "has 321 images, and labels of shape [320]: expected one label for each"),
        ("one_hot", "labels of shape [321, 10]"),
        ("column", "labels of shape [321, 1]"),
        ("float_labels", "labels of torch.float64: expected whole numbers"),
        ("no_channel", "images of shape [321, 8, 8]: expected uint8"),
        ("empty_train", "the training part has no images"),
        ("empty_test", "the test part has no images"),
    ],
)
def test_what_is_wrong_is_named_before_training(run, tmp_path, change, message):
    refused = run(change)
    assert refused.status == 2
    assert refused.err.startswith("ctkd: arrays_of_test_check_splits: the ")
    assert message in refused.err
    assert "Traceback" not in refused.err
    assert " object at 0x" not in refused.err
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_data_that_are_right_are_counted(run):
    done = run("nothing")
    assert done.status == 0
    assert "images: 321 training, 360 test, in 10 classes" in done.out
    judged = run("nothing", "--mode=evaluate")
    assert "images: 321 training, 360 test, in 10 classes" in judged.out


def test_labels_of_image_files_are_checked_too(tmp_path, own_images, command):
    """A data set of files from outside may list any class."""
    from ctkd.data.check_splits import check_splits
    from ctkd.data.from_files import FileSplits, ImageFiles
    from ctkd.data.imagenet import ImageNet
    from ctkd.errors import DataError

    good = ImageFiles.of(str(tmp_path), ["a.png", "b.png"], [0, 1])
    bad = ImageFiles.of(str(tmp_path), ["a.png", "b.png"], np.array([0, 2]))
    dataset = ImageNet(num_classes=2)
    check_splits(FileSplits(good, good), dataset)
    with pytest.raises(DataError, match="the test part has the label 2 at index 1"):
        check_splits(FileSplits(good, bad), dataset)
