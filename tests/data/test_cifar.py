"""CIFAR: where its archive is searched for, and archives that are damaged or wrong."""

import pickle

import numpy as np
import pytest

from ctkd.data import cifar
from ctkd.data.cifar import CIFAR10, CIFAR100
from ctkd.errors import DataError

SIZE = 100


def load(place, **more):
    return CIFAR100(data_dir=None if place is None else str(place), **more).load()


def test_an_archive_is_found_in_its_folder_or_named_itself(
    cifar_archive, cifar_arrays, assert_holds
):
    path = cifar_archive()
    for place in (path, path.parent):
        splits = load(place)
        assert_holds(splits, cifar_arrays)
        assert splits.validation is None


@pytest.mark.parametrize("kind", [np.uint8, np.int32, ">i4"])
def test_labels_may_be_whole_numbers_of_any_kind(cifar_archive, cifar_arrays, kind, assert_holds):
    labels = {
        f"{part}_labels": cifar_arrays[f"{part}_labels"].astype(kind) for part in ("train", "test")
    }
    assert_holds(load(cifar_archive(**labels)), cifar_arrays)


def test_the_environment_says_where_and_the_setting_overrules_it(
    cifar_archive, cifar_arrays, monkeypatch, assert_holds
):
    path = cifar_archive()
    monkeypatch.setenv(cifar.ENVIRONMENT, str(path.parent))
    assert_holds(load(None), cifar_arrays)
    with pytest.raises(DataError, match="elsewhere does not exist"):
        load(path.parent / "elsewhere")


def test_a_tilde_is_the_home_folder(cifar_archive, cifar_arrays, monkeypatch, assert_holds):
    monkeypatch.setenv("HOME", str(cifar_archive().parent))
    assert_holds(load("~"), cifar_arrays)
    assert_holds(load("~/cifar100.npz"), cifar_arrays)


@pytest.mark.parametrize("variable", [None, ""])
def test_without_a_place_the_error_says_what_to_do(variable, monkeypatch, cifar_arrays):
    if variable is not None:
        monkeypatch.setenv(cifar.ENVIRONMENT, variable)
    for dataset in (CIFAR100(), CIFAR10()):
        with pytest.raises(DataError, match="no folder was given") as caught:
            dataset.load()
        for word in ("data_dir = ", "CTKD_DATA", "download = True", f"{dataset.name}.npz"):
            assert word in str(caught.value)
        assert dataset.torchvision_folder in str(caught.value)


def test_a_place_without_images_says_so(tmp_path, cifar_arrays):
    with pytest.raises(DataError, match="has no such files"):
        load(tmp_path)
    with pytest.raises(DataError, match="nowhere does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"other\.npz does not exist"):
        load(tmp_path / "other.npz")


def test_making_one_needs_no_data(cifar_arrays):
    dataset = CIFAR100(data_dir="/nowhere", download=True)
    assert (dataset.num_classes, dataset.shape) == (100, (3, 32, 32))
    assert CIFAR10(data_dir="/nowhere").num_classes == 10


@pytest.mark.parametrize("name", ["train_images", "train_labels", "test_images", "test_labels"])
def test_a_missing_array_is_named(cifar_archive, name):
    with pytest.raises(DataError, match=f"cifar100.npz lacks an array: {name}"):
        load(cifar_archive(**{name: None}))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_cut_short_anywhere_is_refused(cifar_archive, save):
    path = cifar_archive(save)
    whole = path.read_bytes()
    for share in (0.0, 0.001, 0.3, 0.5, 0.9, 0.9999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=r"not a complete \.npz archive"):
            load(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_changed_bytes_are_refused(cifar_archive, cifar_arrays, save, assert_holds):
    """Bytes of the beginning and the end, where the headers are, and some between.

    A changed byte of a header may mean nothing, a date, say; then the arrays are unchanged.
    """
    path = cifar_archive(save)
    whole = path.read_bytes()
    ends = [*range(0, 200, 3), *range(-400, 0, 3)]
    refused = 0
    for place in [*ends, *range(200, len(whole) - 400, len(whole) // 20)]:
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert_holds(load(path), cifar_arrays)
        except DataError:
            refused += 1
    assert refused > 100


def test_what_is_no_archive_is_refused(tmp_path, cifar_arrays):
    path = tmp_path / "cifar100.npz"
    for content in (b"not an archive", pickle.dumps({"train_images": 1}), b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"not a complete \.npz archive"):
            load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))  # one array alone
    with pytest.raises(DataError, match=r"not a complete \.npz archive"):
        load(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"train_images": np.zeros((99, 32, 32, 3), np.uint8)},
            "train split: 99 images and 100 labels",
        ),
        ({"test_images": np.zeros((100, 3, 32, 32), np.uint8)}, r"test split.*channels come first"),
        (
            {"test_images": np.zeros((100, 28, 28, 3), np.uint8)},
            r"\[100, 28, 28, 3\].*\[100, 32, 32",
        ),
        (
            {"train_images": np.zeros((100, 32, 32), np.uint8)},
            r"train split.*\[100, 32, 32\]: expected",
        ),
        ({"train_images": np.zeros((100, 32, 32, 3), np.float32)}, "float32 images"),
        ({"train_images": np.zeros((100, 32, 32, 3), ">f8")}, "float64 images|>f8 images"),
        ({"train_images": np.zeros((100, 32, 32, 3), np.int64)}, "int64 images"),
        ({"train_labels": np.arange(99)}, "train split: 100 images and 99 labels"),
        (
            {"train_labels": np.arange(100)[:, None]},
            r"train split: the labels are int64 \[100, 1\]",
        ),
        ({"test_labels": np.arange(100.0)}, "test has uint8 images and float64 labels"),
        ({"test_labels": np.array(["cat"] * 100)}, "test has uint8 images and <U3 labels"),
        (
            {"train_images": np.zeros((99, 32, 32, 3), np.uint8), "train_labels": np.arange(99)},
            "99 images: expected the 100",
        ),
        ({"train_labels": np.arange(100) + 1}, "image 99 has the label 100.*counted from 1"),
        ({"test_labels": np.arange(100) - 1}, "test split: image 0 has the label -1: expected"),
        ({"test_labels": np.full(100, 2**40)}, "image 0 has the label 1099511627776"),
        (
            {"train_labels": np.where(np.arange(100) == 7, 8, np.arange(100))},
            r"train split: no image has one of the labels \[7\]",
        ),
        (
            {"test_labels": np.zeros(100, np.int64)},
            r"test split: no image has one of the labels \[1, 2",
        ),
    ],
)
def test_wrong_arrays_are_refused(cifar_archive, changed, message):
    with pytest.raises(DataError, match=message):
        load(cifar_archive(**changed))


def test_objects_are_not_unpickled(cifar_archive):
    with pytest.raises(DataError, match="allow_pickle=False"):
        load(cifar_archive(train_labels=np.array([print] * SIZE, dtype=object)))


def test_cifar10_refuses_the_labels_of_cifar100(cifar_archive):
    with pytest.raises(DataError, match=r"expected 0 to 9 .*they are in 0\.\.99"):
        CIFAR10(data_dir=str(cifar_archive())).load()
