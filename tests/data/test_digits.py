"""scikit-learn's digits: a fixed split, few views, statistics of the training images."""

import sys

import pytest
import torch
from sklearn.datasets import load_digits

from ctkd.data.digits import Digits
from ctkd.errors import ConfigError
from ctkd.registry import DATASETS


@pytest.fixture(scope="module")
def splits():
    return Digits().load()


def rows(split):
    """Each image with its class as one row of numbers, to be found again."""
    flat = split.images.flatten(1).long()
    pairs = zip(flat.tolist(), split.targets.tolist(), strict=True)
    return {(*image, target) for image, target in pairs}


def test_every_digit_is_in_one_of_the_parts(splits):
    assert (len(splits.train), len(splits.test)) == (1437, 360)
    assert splits.validation is None
    digits = load_digits()
    sixteenths = torch.from_numpy(digits.images).flatten(1)
    expected = {
        (*(round(pixel * 255 / 16) for pixel in image), target)
        for image, target in zip(sixteenths.tolist(), digits.target.tolist(), strict=True)
    }
    assert rows(splits.train) | rows(splits.test) == expected
    assert not rows(splits.train) & rows(splits.test)


def test_images_are_bytes_over_the_whole_range(splits):
    assert splits.train.images.shape == (1437, 8, 8, 1)
    assert splits.train.images.dtype == torch.uint8
    assert splits.train.targets.dtype == torch.int64
    assert splits.train.images.max() == 255


def test_every_class_is_well_represented_in_both_parts(splits):
    for split in (splits.train, splits.test):
        shares = split.targets.bincount(minlength=10) / len(split)
        assert shares.min() > 0.07
        assert shares.max() < 0.13


def test_the_split_is_the_same_every_time(splits):
    torch.manual_seed(5)
    again = Digits().load()
    assert torch.equal(again.train.images, splits.train.images)
    assert torch.equal(again.test.targets, splits.test.targets)


def test_mean_and_deviation_are_those_of_the_training_images(splits):
    pixels = splits.train.images.double() / 255
    assert Digits.mean[0] == pytest.approx(pixels.mean().item(), abs=5e-5)
    assert Digits.std[0] == pytest.approx(pixels.std().item(), abs=5e-5)


def test_validation_images_come_out_of_the_training_images_alone(splits):
    held = Digits(validation=200).load()
    assert (len(held.train), len(held.validation), len(held.test)) == (1237, 200, 360)
    assert torch.equal(held.test.images, splits.test.images)
    assert rows(held.train) | rows(held.validation) == rows(splits.train)
    assert not rows(held.train) & rows(held.validation)


def test_fewer_training_images_are_some_of_them(splits):
    few = Digits(train_images=100).load()
    assert len(few.train) == 100
    assert rows(few.train) <= rows(splits.train)
    assert torch.equal(few.test.images, splits.test.images)
    both = Digits(train_images=100, validation=50).load()
    assert (len(both.train), len(both.validation)) == (100, 50)


def test_digits_are_cropped_by_up_to_a_pixel_and_never_mirrored():
    assert Digits().views.count == 9
    assert Digits(padding=2).views.count == 25
    assert Digits(padding=0).views.count == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"padding": -1},
        {"validation": -1},
        {"train_images": 0},
        {"train_images": 1438},
        {"train_images": 1400, "validation": 100},
        {"validation": 1437},
    ],
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"digits\.(padding|validation|train_images) = "):
        Digits(**wrong)


def test_making_one_needs_no_data(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # importing it now fails
    made = DATASETS.get("digits")()
    assert (made.num_classes, made.shape) == (10, (1, 8, 8))
    with pytest.raises(ImportError):
        made.load()
