"""Image files of any depth and color, for the three readers of the project."""

import numpy as np
import pytest
from PIL import Image

from ctkd.data.decoding import BadImageError, decode
from ctkd.data.folders import read_folders
from ctkd.data.pictures import read_picture
from ctkd.errors import DataError

GRAY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
DEEP = {
    "16 bits.png": GRAY.astype(np.uint16) * 257,
    "12 bits in 16.png": GRAY.astype(np.uint16) * 16,
    "16 bits.tif": GRAY.astype(np.uint16) * 257,
    "32 bits.tif": GRAY.astype(np.int32) * 2**20,
    "float.tif": (GRAY / 255).astype(np.float32),
}


@pytest.fixture
def read(tmp_path):
    """Reads a file by one of the three readers: [8, 8, 3]."""

    def call(reader, path):
        if reader == "decode":
            return decode(str(path)).permute(1, 2, 0).numpy()
        if reader == "read_picture":
            return read_picture(str(path)).permute(1, 2, 0).numpy()
        for part in ("train", "test"):
            folder = tmp_path / "set" / part / "only"
            folder.mkdir(parents=True)
            (folder / path.name).write_bytes(path.read_bytes())
        parts, _ = read_folders(tmp_path / "set", 1, (3, 8, 8))
        return parts["train"].images[0].numpy()

    return call


READERS = pytest.mark.parametrize("reader", ["decode", "read_picture", "read_folders"])


@READERS
@pytest.mark.parametrize("name", DEEP)
def test_more_than_8_bits_are_refused_by_name(read, tmp_path, reader, name):
    path = tmp_path / name
    Image.fromarray(DEEP[name]).save(path)
    with pytest.raises((DataError, BadImageError)) as refused:
        read(reader, path)
    assert name in str(refused.value)
    assert "more than 8 bits per color (PIL's mode" in str(refused.value)
    assert "convert it to 8 bits" in str(refused.value)


@READERS
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "CMYK"])
def test_pictures_of_8_bits_and_less_are_read_as_pil_converts_them(read, tmp_path, reader, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(GRAY).convert("RGB").convert(mode).save(path)
    with Image.open(path) as image:
        expected = np.array(image.convert("RGB"))
    assert np.array_equal(read(reader, path), expected)
