"""Files to bytes, crops of bytes: against PIL, against rectangles known by hand."""

import io
import statistics

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from ctkd.data.decoding import BadImageError, CenterCrop, RandomCrop, decode, random_crop

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@pytest.fixture
def picture():
    """A smooth picture of 90 × 70 pixels, with some noise."""
    rows, columns = np.mgrid[:70, :90]
    pixels = np.stack([rows * 3, columns * 2, (rows + columns)], 2) % 256
    noise = np.random.default_rng(0).integers(0, 20, pixels.shape)
    return Image.fromarray((pixels * 0.8 + noise).astype(np.uint8))


def difference(pixels, image):
    """Mean absolute difference of bytes [3, H, W] and a PIL image."""
    other = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == other.shape
    return (pixels.int() - other.int()).abs().double().mean().item()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_of_every_color_come_as_pil_reads_them(picture, tmp_path, mode):
    path = tmp_path / "a.JPEG"
    picture.convert(mode).save(path, "JPEG", quality=95)
    pixels = decode(str(path))
    with Image.open(path) as image:
        assert difference(pixels, image) < 1.0
    if mode == "L":
        assert torch.equal(pixels[0], pixels[2])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_another_format_under_the_name_of_a_jpeg(picture, tmp_path, kind):
    path = tmp_path / "a.JPEG"
    picture.save(path, kind)
    with Image.open(path) as image:
        assert difference(decode(str(path)), image) == 0


def test_transparent_and_palette_images_become_colors(picture, tmp_path):
    for mode in ("RGBA", "P", "LA"):
        path = tmp_path / f"{mode}.png"
        picture.convert(mode).save(path, "PNG")
        assert decode(str(path)).shape == (3, 70, 90)


def test_an_exif_orientation_is_not_applied(picture, tmp_path):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture.save(path, "JPEG", exif=exif)
    assert decode(str(path)).shape == (3, 70, 90)


def test_broken_exif_is_no_obstacle(picture, tmp_path):
    path = tmp_path / "a.jpg"
    picture.save(path, "JPEG", exif=b"Exif\x00\x00nonsense")
    assert decode(str(path)).shape == (3, 70, 90)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "missing", "folder", "head"])
def test_what_is_no_image_is_named(picture, tmp_path, damage):
    path = tmp_path / "a.JPEG"
    file = io.BytesIO()
    picture.save(file, "JPEG")
    whole = file.getvalue()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        contents = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"<html>"}
        path.write_bytes(contents.get(damage, whole[:3]))
    with pytest.raises(BadImageError, match=r"a\.JPEG"):
        decode(str(path))


def test_rectangles_by_hand():
    half = [0.0, 0.0, 0.5, 0.5] * 10
    # half of the area of 100 × 200 as a square: 100 × 100, in the middle of 101 places
    assert random_crop(100, 200, (0.5, 0.5), (1.0, 1.0), half) == (0, 50, 100, 100)
    # a quarter, twice as wide as high: 50 high, 100 wide; 51 and 101 places
    assert random_crop(100, 200, (0.25, 0.25), (2.0, 2.0), half) == (25, 50, 50, 100)
    # the last place of all: numbers just below 1
    assert random_crop(10, 10, (0.25, 0.25), (1.0, 1.0), [0.999] * 40) == (5, 5, 5, 5)
    # a whole strip is never square, so the middle is taken
    assert random_crop(10, 90, (1.0, 1.0), (1.0, 1.0), half) == (0, 40, 10, 10)
    assert random_crop(90, 10, (1.0, 1.0), RATIO, half) == (38, 0, 13, 10)


def test_crops_lie_inside_and_have_the_share_and_shape_they_should():
    crop = RandomCrop(8, SCALE, RATIO, True)
    shares, shapes, mirrored = [], [], 0
    for view in range(1500):
        (top, left, height, width), flip = crop.box(400, 500, view)
        assert 0 <= top <= 400 - height
        assert 0 <= left <= 500 - width
        shares.append(height * width / 200_000)
        shapes.append(width / height)
        mirrored += flip
    assert 0.079 < min(shares) < 0.1
    assert 0.74 < min(shapes) < 0.78
    assert 1.28 < max(shapes) < 1.35
    # large wide crops do not fit and are drawn again, so the mean is a little below 0.54
    assert 0.45 < statistics.mean(shares) < 0.54
    assert 650 < mirrored < 850


def test_a_view_decides_everything_and_half_are_mirrored(picture):
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    crop, plain = RandomCrop(32, SCALE, RATIO, True), RandomCrop(32, SCALE, RATIO, False)
    for view in (0, 7, 2**62 - 1):
        cut = crop(pixels, view)
        assert cut.shape == (3, 32, 32)
        assert cut.dtype == torch.uint8
        assert torch.equal(cut, crop(pixels, view))
        _, mirrored = crop.box(70, 90, view)
        assert torch.equal(cut.flip(2) if mirrored else cut, plain(pixels, view))
    assert not torch.equal(crop(pixels, 1), crop(pixels, 2))


def test_the_crop_is_the_one_that_torchvision_takes_of_a_picture(picture):
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    crop = RandomCrop(32, SCALE, RATIO, False)
    for view in range(20):
        box, _ = crop.box(70, 90, view)
        expected = transforms.functional.resized_crop(picture, *box, [32, 32])
        assert difference(crop(pixels, view), expected) < 0.6


@pytest.mark.parametrize(("size", "resize"), [(32, 36), (35, 70), (9, 64)])
def test_the_middle_is_the_one_that_torchvision_takes(picture, size, resize):
    pipeline = transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(size)])
    for image in (picture, picture.rotate(90, expand=True)):
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        assert difference(CenterCrop(size, resize)(pixels), pipeline(image)) < 0.6
