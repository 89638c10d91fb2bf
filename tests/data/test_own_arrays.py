"""Data of one's own: what is wrong with it is found before training, with index and value."""

import pytest
import torch

from ctkd.data.augment import CropFlip
from ctkd.data.digits import Digits
from ctkd.data.in_memory import ResidentDataset, Split, Splits
from ctkd.registry import DATASETS


@DATASETS.register("arrays_of_test_own_arrays")
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
            "--gin_param=Recipe.dataset = @arrays_of_test_own_arrays",
            f"--gin_param=arrays_of_test_own_arrays.change = '{change}'",
            "--gin_param=epochs = 1",
            "--gin_param=Runtime.tensorboard = False",
            "--gin_param=Runtime.figures = False",
            "--workdir=run",
            *more,
        )

    return call


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("minus_100", "train split: image 5 has the label -100: expected 0 to 9"),
        ("minus_1", "image 5 has the label -1: expected 0 to 9"),
        ("eleven", "image 5 has the label 10: expected 0 to 9"),
        ("test_minus_1", "test split: image 3 has the label -1: expected 0 to 9"),
        ("one_based", "The labels seem to be counted from 1: subtract 1"),
        ("floats", "float32 [321, 8, 8, 1] from 0 to 1 (image 0 has the pixel"),
        ("mismatch", "321 images and 320 labels: expected one label for each image"),
        ("one_hot", "For one-hot labels: targets.argmax(1)"),
        ("column", "Remove the second axis: targets[:, 0].long()"),
        ("float_labels", "the labels are float64 [321]: expected int64 [321]"),
        ("no_channel", "The axis of the channels is missing: images[..., None]"),
        ("empty_train", "train split: there are no images: expected at least one"),
        ("empty_test", "test split: there are no images: expected at least one"),
    ],
)
def test_what_is_wrong_is_named_before_training(run, tmp_path, change, message):
    refused = run(change)
    assert refused.status == 2
    assert refused.err.startswith("ctkd: arrays_of_test_own_arrays, ")
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
