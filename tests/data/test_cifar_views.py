"""CIFAR's settings: the validation split, and the 162 views of a training image."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms.v2 import functional

from ctkd.data import cifar
from ctkd.data.cifar import CIFAR10, CIFAR100
from ctkd.data.in_memory import ResidentImages
from ctkd.errors import ConfigError
from ctkd.registry import DATASETS

SIZE = 100


def load(place, **more):
    return CIFAR100(data_dir=None if place is None else str(place), **more).load()


def reference(image, view):
    """torchvision's zero padding, crop and flip: what RandomCrop and RandomHorizontalFlip call."""
    crop, mirrored = view % 81, view >= 81
    top, left = divmod(crop, 9)
    cropped = functional.crop(functional.pad(image, [4, 4, 4, 4]), top, left, 32, 32)
    return functional.horizontal_flip(cropped) if mirrored else cropped


def test_validation_is_taken_out_of_the_training_images_and_never_moves(
    cifar_archive, cifar_arrays
):
    path = cifar_archive()
    splits = load(path, validation=20)
    assert splits.validation is not None
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (80, 20, 100)
    kept, aside = set(splits.train.targets.tolist()), set(splits.validation.targets.tolist())
    assert not kept & aside  # each label is there once, so it names its image
    assert kept | aside == set(range(100))
    assert np.array_equal(splits.test.images.numpy(), cifar_arrays["test_images"])
    torch.manual_seed(5)
    again = load(path, validation=20)
    assert torch.equal(again.validation.targets, splits.validation.targets)


def test_the_real_size_gives_45000_and_5000(monkeypatch, cifar_arrays):
    monkeypatch.setattr(cifar, "TRAIN_IMAGES", 50_000)
    monkeypatch.setattr(cifar, "PARTS", {"train": 50_000, "test": 10_000})
    labels = torch.arange(50_000) % 100
    blank = torch.zeros(1, 1, 1, 1, dtype=torch.uint8)
    parts = {
        name: cifar.Split(blank.expand(size, 32, 32, 3), labels[:size])
        for name, size in cifar.PARTS.items()
    }
    monkeypatch.setattr(cifar.CIFAR, "_read", lambda self, path: (parts, ()))
    splits = load("anywhere", validation=5000)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (45_000, 5_000, 10_000)


def test_all_162_views_are_torchvisions_crops_and_flips(cifar_archive):
    splits = load(cifar_archive())
    dataset = CIFAR100()
    resident = ResidentImages(splits.train, dataset, torch.device("cpu"))
    views = torch.arange(dataset.views.count)
    assert len(views) == 162
    indices = (views * 7) % SIZE
    images = splits.train.images.permute(0, 3, 1, 2)
    expected = torch.stack(
        [reference(images[i], v) for i, v in zip(indices.tolist(), views.tolist(), strict=True)]
    )
    padded = dataset.views.pad(splits.train.images)
    assert torch.equal(dataset.views.take(padded, indices, views), expected)
    # What a network sees: the same, normalized, with the border black before it.
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (dataset.mean, dataset.std))
    torch.testing.assert_close(
        resident.batch(indices, views), (expected / 255 - mean) / std, rtol=1e-5, atol=1e-5
    )


def test_views_are_drawn_as_a_random_crop_with_padding_and_a_coin(cifar_arrays):
    """RandomCrop draws row and column uniformly out of nine each, RandomHorizontalFlip half."""
    drawn = CIFAR100().views.draw(50_000, 0, "views", 1)
    counts = torch.bincount(drawn, minlength=162).numpy()
    assert len(counts) == 162
    assert stats.chisquare(counts).pvalue > 1e-3
    by_part = counts.reshape(2, 9, 9)
    for axes in ((1, 2), (0, 2), (0, 1)):  # flip, row, column
        assert stats.chisquare(by_part.sum(axis=axes)).pvalue > 1e-3


@pytest.mark.parametrize("kind", [CIFAR100, CIFAR10])
@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("padding", -1, "0 or more"),
        ("validation", -1, "a number from 0 to 99"),
        ("validation", SIZE, "a number from 0 to 99"),
        ("mean", (0.5, 0.5), "three numbers"),
        ("std", (0.5, 0.5, 0.0), "above 0"),
        ("std", (0.5, 0.5), "three numbers"),
    ],
)
def test_settings_out_of_range_are_refused(kind, setting, value, expected, cifar_arrays):
    with pytest.raises(ConfigError, match=rf"{kind.name}\.{setting} = .*{expected}"):
        kind(**{setting: value})


def test_they_are_registered_and_their_places_belong_to_the_runtime(cifar_arrays):
    for name, kind in (("cifar100", CIFAR100), ("cifar10", CIFAR10)):
        component = DATASETS.component(name)
        assert component.target is kind
        assert component.settings_of("data_dir") == component.settings_of("download") == "runtime"
        assert component.settings_of("validation") == "recipe"
