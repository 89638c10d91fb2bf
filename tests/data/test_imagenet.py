"""Where ImageNet's files are searched for, and the errors for an incorrect data set."""

import shutil

import pytest
import torch

from ctkd.data.dataset import take_validation
from ctkd.data.from_files import ImageFiles, Reader, collate
from ctkd.data.imagenet import ImageNet
from ctkd.errors import ConfigError, DataError


def names(files):
    return [files.path(i).removeprefix(files.root + "/") for i in range(len(files))]


def test_class_folders_in_their_order(image_folders):
    splits = ImageNet(str(image_folders), num_classes=3).load()
    assert len(splits.train) == 24
    assert len(splits.test) == 12
    assert splits.validation is None
    assert names(splits.test)[:5] == [
        *(f"n00000000/val_{k}.JPEG" for k in range(4)),
        "n00000001/val_0.JPEG",
    ]
    assert splits.test.targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_the_place_may_come_from_the_environment(image_folders, monkeypatch):
    monkeypatch.setenv("CTKD_DATA", str(image_folders))
    dataset = ImageNet(num_classes=3)
    assert dataset.folder == image_folders
    assert len(dataset.load().train) == 24


def test_lists_in_place_of_folders(own_images):
    root = own_images()
    (root / "train.txt").write_text(
        "train/n00000001/train_0.JPEG 1\n\nval/n00000002/val_3.JPEG 2\n"
    )
    dataset = ImageNet(str(root), num_classes=3, train_list="train.txt")
    splits = dataset.load()
    assert names(splits.train) == ["train/n00000001/train_0.JPEG", "val/n00000002/val_3.JPEG"]
    assert splits.train.targets.tolist() == [1, 2]
    assert len(splits.test) == 12
    flat = root / "flat"
    flat.mkdir()
    shutil.copy(root / "val/n00000000/val_0.JPEG", flat / "one image.JPEG")
    (root / "val.txt").write_text("flat/one image.JPEG 0\n")
    both = ImageNet(str(root), "train.txt", str(root / "val.txt"), num_classes=3).load()
    assert Reader(both.test, dataset.presentation)(0, 0).target == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train/n00000001/train_0.JPEG", "expected a path, a space and a class from 0 to 2"),
        ("train/n00000001/train_0.JPEG 3", "a class from 0 to 2"),
        ("train/n00000001/train_0.JPEG -1", "a class from 0 to 2"),
        ("elsewhere.JPEG 1", "elsewhere.JPEG, which is not in"),
        ("", "is empty"),
    ],
)
def test_a_list_that_is_wrong(own_images, line, message):
    root = own_images()
    (root / "list").write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        ImageNet(str(root), val_list="list", num_classes=3).load()
    with pytest.raises(DataError, match="cannot be read"):
        ImageNet(str(root), val_list="absent", num_classes=3).load()


def test_a_list_as_windows_editors_save_it(own_images):
    root = own_images(train=1)
    lines = "\ufefftrain/n00000001/train_0.JPEG 1\r\ntrain/n00000002/train_0.JPEG 2\r\n"
    (root / "list").write_bytes(lines.encode())
    splits = ImageNet(str(root), num_classes=3, train_list="list").load()
    assert splits.train.targets.tolist() == [1, 2]
    assert names(splits.train)[0].endswith("train/n00000001/train_0.JPEG")
    (root / "list").write_bytes(lines.encode("utf-16"))
    with pytest.raises(DataError, match=r"list cannot be read: it is UTF-16 text.*save it again"):
        ImageNet(str(root), num_classes=3, train_list="list").load()


def test_missing_files_are_reported_with_their_expected_paths(own_images, tmp_path, monkeypatch):
    monkeypatch.delenv("CTKD_DATA", raising=False)
    advice = r"data_dir = '/path'.*CTKD_DATA.*train/WNID/\*.JPEG and val/WNID/\*.JPEG"
    with pytest.raises(DataError, match="no folder was given.*" + advice):
        ImageNet().load()
    with pytest.raises(DataError, match="does not exist.*" + advice):
        ImageNet(str(tmp_path / "absent")).load()
    root = own_images()
    with pytest.raises(DataError, match="3 class folders, imagenet.num_classes is 1000.*" + advice):
        ImageNet(str(root)).load()
    shutil.rmtree(root / "val" / "n00000001")
    (root / "val" / "n00000009").mkdir()
    with pytest.raises(DataError, match="differ in the classes.*n00000001.*n00000009"):
        ImageNet(str(root), num_classes=3).load()
    shutil.rmtree(root / "val" / "n00000009")
    (root / "val" / "n00000001").mkdir()
    with pytest.raises(DataError, match="n00000001 contains no images"):
        ImageNet(str(root), num_classes=3).load()
    shutil.rmtree(root / "val")
    with pytest.raises(DataError, match="has no folder val/"):
        ImageNet(str(root), num_classes=3).load()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 1}, "num_classes = 1"),
        ({"size": 224, "resize": 200}, "resize = 200: expected at least imagenet.size"),
        ({"scale": (0.5, 0.1)}, "scale"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"mean": (1.0,)}, "mean"),
        ({"max_bad": -1}, "max_bad"),
        ({"validation": -1}, "validation"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=f"imagenet.{message}"):
        ImageNet(**settings)


def test_validation_images_are_taken_out_of_the_training_images(image_folders):
    whole = ImageNet(str(image_folders), num_classes=3).load().train
    splits = ImageNet(str(image_folders), num_classes=3, validation=5).load()
    assert (len(splits.train), len(splits.validation)) == (19, 5)
    assert sorted(names(splits.train) + names(splits.validation)) == names(whole)
    again = ImageNet(str(image_folders), num_classes=3, validation=5).load()
    assert names(again.validation) == names(splits.validation)
    with pytest.raises(DataError, match="validation = 24"):
        ImageNet(str(image_folders), num_classes=3, validation=24).load()


def test_names_of_any_length_and_letters_survive_the_packing():
    given = ["a.jpg", "ein Bild mit Zügen/ß.jpg", "", "c" * 300]
    files = ImageFiles.of("/r", given, [3, 1, 4, 1])
    assert [files.path(i) for i in range(4)] == [f"/r/{name}" for name in given]
    part = files.take(torch.tensor([3, 1, 1]))
    assert [part.path(i) for i in range(3)] == ["/r/" + given[k] for k in (3, 1, 1)]
    assert part.targets.tolist() == [1, 1, 1]
    assert take_validation(files, 0) == (files, None)


def test_the_next_image_takes_the_place_of_a_bad_one(own_images):
    root = own_images()
    dataset = ImageNet(str(root), num_classes=3)
    files = dataset.load().train
    good = Reader(files, dataset.augmentation)(8, 5)
    for name in ("train_6", "train_7"):
        (root / "train" / "n00000000" / f"{name}.JPEG").write_bytes(b"\xff\xd8 no more")
    sample = Reader(files, dataset.augmentation, tries=3)(6, 5)
    assert torch.equal(sample.pixels, good.pixels)  # in the view that was asked for
    assert sample.target == 1
    assert ["train_6" in sample.bad[0], "train_7" in sample.bad[1], len(sample.bad)] == [
        True,
        True,
        2,
    ]
    nothing = Reader(files, dataset.augmentation, tries=2)(6, 5)
    assert (nothing.target, len(nothing.bad)) == (-1, 2)
    last = Reader(files, dataset.augmentation, tries=9)
    (root / "train" / "n00000002" / "train_7.JPEG").unlink()
    assert last(23, 5).target == 0  # the first one follows the last


def test_a_batch_lies_as_convolutions_want_it(image_folders):
    dataset = ImageNet(str(image_folders), num_classes=3, size=16, resize=18)
    read = Reader(dataset.load().train, dataset.augmentation)
    batch = collate([read(index, index) for index in (0, 9, 17)])
    assert batch.pixels.shape == (3, 3, 16, 16)
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    assert batch.targets.tolist() == [0, 1, 2]
    assert torch.equal(batch.pixels[1], read(9, 9).pixels)
