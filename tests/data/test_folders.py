"""Image folders: what is read, in which order, and every way in which they can be wrong."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from ctkd.data.folders import list_files, read_folders
from ctkd.errors import DataError

SHAPE = (3, 8, 6)  # channels, height, width


def picture(seed, mode="RGB"):
    height, width = SHAPE[1:]
    size = (height, width) if mode == "L" else (height, width, len(mode))
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@pytest.fixture
def root(tmp_path):
    """Three classes of two images, and one image a class to test on."""
    for part, count in (("train", 2), ("test", 1)):
        for number, name in enumerate(("ant", "bee", "cat")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = picture(100 * number + index + (part == "test") * 50)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path


def test_images_and_classes_come_in_the_order_of_their_names(root):
    parts, _ = read_folders(root, 3, SHAPE)
    train, test = parts["train"], parts["test"]
    assert train.images.shape == (6, 8, 6, 3)
    assert train.images.dtype == torch.uint8
    assert train.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert test.targets.tolist() == [0, 1, 2]
    assert test.targets.dtype == torch.int64
    assert np.array_equal(train.images[3], picture(101))
    assert np.array_equal(test.images[2], picture(250))


def test_classes_named_by_numbers_come_in_the_order_of_the_numbers(tmp_path):
    for part in ("train", "test"):
        for number in range(12):
            (tmp_path / part / str(number)).mkdir(parents=True)
            Image.fromarray(picture(number)).save(tmp_path / part / str(number) / "a.png")
    train = read_folders(tmp_path, 12, SHAPE)[0]["train"]
    for number in range(12):
        assert np.array_equal(train.images[number], picture(number))


def test_other_files_and_endings(root):
    (root / "train" / "notes.txt").write_text("no class")
    (root / "train" / "ant" / "notes.txt").write_text("no image")
    Image.fromarray(picture(7)).save(root / "train" / "ant" / "9.BMP")
    train = read_folders(root, 3, SHAPE)[0]["train"]
    assert train.targets.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert np.array_equal(train.images[2], picture(7))


def test_folders_inside_class_folders_and_all_endings_of_image_folder(root):
    for number, ending in enumerate((".tif", ".tiff", ".ppm", ".PNG", ".jpeg", ".webp")):
        path = root / "train" / "bee" / "more" / f"deep{number}" / f"x{ending}"
        path.parent.mkdir(parents=True)
        Image.fromarray(picture(number)).save(path)
    Image.fromarray(picture(1, "L")).save(root / "train" / "bee" / "more" / "x.pgm")
    train = read_folders(root, 3, SHAPE)[0]["train"]
    assert train.targets.bincount().tolist() == [2, 9, 2]
    reference = torchvision.datasets.ImageFolder(str(root / "train"))
    assert train.targets.tolist() == [target for _, target in reference.samples]
    listed = list_files(root / "train", ["ant", "bee", "cat"])
    assert [str(root / "train" / name) for name in listed.names] == [
        p for p, _ in reference.samples
    ]


def test_what_is_left_out_and_the_order_are_reported(root):
    for name in ("a.txt", "b.txt", "c.gif", ".hidden"):
        (root / "train" / "ant" / name).write_text("no image")
    _, notes = read_folders(root, 3, SHAPE)
    assert notes[0] == "classes are numbered by the names of their folders, from ant = 0 to cat"
    assert "left out 3 files that are not images (2 with .txt, 1 with .gif" in notes[1]
    assert "ant/a.txt, for example" in notes[1]


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_other_colors_become_rgb(root, mode):
    pixels = picture(7, mode)
    Image.fromarray(pixels, mode).save(root / "test" / "ant" / "0.png")
    expected = np.repeat(pixels[..., None], 3, axis=2) if mode == "L" else pixels[..., :3]
    assert np.array_equal(read_folders(root, 3, SHAPE)[0]["test"].images[0], expected)


def remove(folder):
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_class_is_named(root, part):
    remove(root / part / "bee")
    with pytest.raises(DataError, match=r"expected the same 3 in both; only in one of them: bee"):
        read_folders(root, 3, SHAPE)


def test_a_class_missing_from_both_parts_is_counted(root):
    for part in ("train", "test"):
        remove(root / part / "bee")
    with pytest.raises(DataError, match=r"2 class folders in train/ and 2 in test/.*same 3"):
        read_folders(root, 3, SHAPE)


def test_a_misspelled_class_is_named(root):
    (root / "test" / "cat").rename(root / "test" / "cta")
    with pytest.raises(DataError, match="only in one of them: cat, cta"):
        read_folders(root, 3, SHAPE)


def test_a_missing_part_is_reported(root):
    for name in ("ant", "bee", "cat"):
        remove(root / "test" / name)
    (root / "test").rmdir()
    with pytest.raises(DataError, match="3 class folders in train/ and 0 in test/"):
        read_folders(root, 3, SHAPE)


def test_an_empty_class_is_named(root):
    (root / "test" / "bee" / "0.png").unlink()
    with pytest.raises(DataError, match=r"bee contains no images"):
        read_folders(root, 3, SHAPE)


@pytest.mark.parametrize("size", [(6, 8), (8, 7), (1, 1), (600, 800)])
def test_an_image_of_another_size_is_named(root, size):
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(root / "train" / "cat" / "1.png")
    with pytest.raises(DataError, match=rf"1\.png is {size[1]} × {size[0]} pixels: expected 6 × 8"):
        read_folders(root, 3, SHAPE)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"BM" + b"\xff" * 60])
def test_a_file_that_is_no_image_is_named(root, content):
    (root / "train" / "cat" / "1.png").write_bytes(content)
    with pytest.raises(DataError, match=r"cat/1\.png is not a readable image"):
        read_folders(root, 3, SHAPE)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp"])
def test_an_image_cut_short_is_named(root, ending):
    path = root / "train" / "cat" / f"1.{ending}"
    Image.fromarray(picture(1)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"1\.{ending} is not a readable image"):
        read_folders(root, 3, SHAPE)


def test_a_size_beyond_reason_is_reported_without_decoding(root):
    """A header may claim anything: Pillow raises an error of a kind of its own for 2^31 pixels."""
    path = root / "train" / "cat" / "1.bmp"
    Image.fromarray(picture(1)).save(path)
    header = bytearray(path.read_bytes())
    header[18:26] = (2**16 - 1).to_bytes(4, "little") * 2
    path.write_bytes(header)
    with pytest.raises(DataError, match=r"1\.bmp is not a readable image"):
        read_folders(root, 3, SHAPE)
