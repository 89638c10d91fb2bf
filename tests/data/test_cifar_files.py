"""CIFAR from torchvision's files, whole, damaged or downloaded, and from folders of images."""

import hashlib
import pathlib
import pickle

import numpy as np
import pytest
import torchvision
from PIL import Image

from ctkd.data.cifar import CIFAR10, CIFAR100
from ctkd.errors import DataError

SIZE = 100


def load(place, **more):
    return CIFAR100(data_dir=None if place is None else str(place), **more).load()


def write_torchvision(root, kind, arrays, monkeypatch):
    """Files in the form of torchvision's, and their checksums put in the place of the real ones."""
    folder = root / kind.base_folder
    folder.mkdir()

    def put(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    hundred = kind is torchvision.datasets.CIFAR100
    for part in ("train", "test"):
        rows = arrays[f"{part}_images"].transpose(0, 3, 1, 2).reshape(SIZE, -1)
        labels = arrays[f"{part}_labels"].tolist()
        pieces = [slice(None)]
        if part == "train" and not hundred:
            pieces = [slice(0, 60), slice(60, None)]
        listed = [
            put(
                f"{part}{number}",
                {"data": rows[piece], "fine_labels" if hundred else "labels": labels[piece]},
            )
            for number, piece in enumerate(pieces)
        ]
        monkeypatch.setattr(kind, f"{part}_list", listed)
    key = kind.meta["key"]
    name, checksum = put(kind.meta["filename"], {key: [str(i) for i in range(100)]})
    monkeypatch.setattr(kind, "meta", {"filename": name, "key": key, "md5": checksum})
    return folder


def test_torchvisions_files(tmp_path, cifar_arrays, monkeypatch, assert_holds):
    write_torchvision(tmp_path, torchvision.datasets.CIFAR100, cifar_arrays, monkeypatch)
    assert_holds(load(tmp_path), cifar_arrays)
    assert_holds(
        load(tmp_path, download=True), cifar_arrays
    )  # what is there is not downloaded again


def test_torchvisions_files_of_cifar10(tmp_path, cifar_arrays, monkeypatch, assert_holds):
    tenth = cifar_arrays | {
        f"{part}_labels": cifar_arrays[f"{part}_labels"] % 10 for part in ("train", "test")
    }
    write_torchvision(tmp_path, torchvision.datasets.CIFAR10, tenth, monkeypatch)
    assert_holds(CIFAR10(data_dir=str(tmp_path)).load(), tenth)


@pytest.mark.parametrize("name", ["train0", "test0", "meta"])
@pytest.mark.parametrize("how", ["absent", "cut short", "a byte changed"])
def test_damaged_files_of_torchvision_are_refused(tmp_path, cifar_arrays, monkeypatch, name, how):
    folder = write_torchvision(tmp_path, torchvision.datasets.CIFAR100, cifar_arrays, monkeypatch)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    if how == "absent":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content[: len(content) // 2] if how[0] == "c" else content)
    with pytest.raises(DataError, match="incomplete or damaged") as caught:
        load(tmp_path)
    assert "download = True" in str(caught.value)


def test_files_whose_checksum_differs_are_never_unpickled(tmp_path, monkeypatch, cifar_arrays):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()

    class Trap:
        def __reduce__(self):
            return (pathlib.Path.touch, (tmp_path / "sprung",))

    for name in ("train", "test", "meta"):
        (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match="incomplete or damaged"):
        load(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("error", [OSError("no network"), EOFError("cut short"), RuntimeError("?")])
def test_a_download_that_fails_is_refused(tmp_path, monkeypatch, error, cifar_arrays):
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(torchvision.datasets.CIFAR100, "download", fail)
    with pytest.raises(DataError, match="incomplete or damaged"):
        load(tmp_path, download=True)


def test_a_download_without_a_place_goes_to_data(tmp_path, monkeypatch, cifar_arrays):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(
        torchvision.datasets.CIFAR100, "download", lambda self: asked.append(self.root)
    )
    with pytest.raises(DataError):
        load(None, download=True)
    assert asked == ["data"]


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch, cifar_arrays):
    def fail(*arguments, **keywords):
        raise AssertionError("a download")

    monkeypatch.setattr(torchvision.datasets.CIFAR100, "download", fail)
    (tmp_path / "cifar-100-python").mkdir()
    for place in (None, tmp_path):
        with pytest.raises(DataError):
            load(place)


def test_image_folders(tmp_path, cifar_arrays):
    for part in ("train", "test"):
        for image, label in zip(
            cifar_arrays[f"{part}_images"], cifar_arrays[f"{part}_labels"], strict=True
        ):
            folder = tmp_path / part / f"class {label:03}"
            folder.mkdir(parents=True)
            Image.fromarray(image).save(folder / "only.png")
    splits = load(tmp_path)
    for part, split in (("train", splits.train), ("test", splits.test)):
        order = np.argsort(cifar_arrays[f"{part}_labels"])
        assert np.array_equal(split.images.numpy(), cifar_arrays[f"{part}_images"][order])
        assert split.targets.tolist() == list(range(100))
