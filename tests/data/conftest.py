"""A small CIFAR-100: a hundred images a part, one of each class."""

import numpy as np
import pytest
import torch

from ctkd.data import cifar

SIZE = 100


@pytest.fixture
def cifar_arrays(monkeypatch):
    """The arrays of the small set, whose size is taken for the right one."""
    monkeypatch.setattr(cifar, "TRAIN_IMAGES", SIZE)
    monkeypatch.setattr(cifar, "PARTS", {"train": SIZE, "test": SIZE})
    monkeypatch.delenv(cifar.ENVIRONMENT, raising=False)
    random = np.random.default_rng(0)
    made = {}
    for part in ("train", "test"):
        made[f"{part}_images"] = random.integers(0, 256, (SIZE, 32, 32, 3), dtype=np.uint8)
        made[f"{part}_labels"] = random.permutation(SIZE)
    return made


@pytest.fixture
def cifar_archive(tmp_path, cifar_arrays):
    """Writes cifar100.npz of those arrays, some changed or left out; returns its path."""

    def write(save=np.savez, **changed):
        path = tmp_path / "cifar100.npz"
        kept = {k: value for k, value in (cifar_arrays | changed).items() if value is not None}
        save(path, **kept)
        return path

    return write


@pytest.fixture
def assert_holds():
    """Asserts that splits hold the arrays."""

    def compare(splits, arrays):
        for part, split in (("train", splits.train), ("test", splits.test)):
            assert split.images.dtype == torch.uint8
            assert split.targets.dtype == torch.int64
            assert np.array_equal(split.images.numpy(), arrays[f"{part}_images"])
            assert np.array_equal(split.targets.numpy(), arrays[f"{part}_labels"])

    return compare
