"""Reads the pixels of image files as bytes, 8 bits per color."""

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ctkd.errors import DataError

# Pixels of these modes have more than 8 bits. PIL would cut them at 255: a picture of 16 bits
# would be white. The file does not give its range (it may be 12 bits of 16), so none is guessed.
DEEP_MODES = ("I", "F")


def check_depth(image: Image.Image) -> None:
    """Raises ValueError if an image has more than 8 bits per color. Decodes nothing."""
    if image.mode in DEEP_MODES or image.mode.startswith("I;"):
        raise ValueError(
            f"it has more than 8 bits per color (PIL's mode {image.mode}): convert it to 8 bits, "
            "scaled by the range that its pixels use"
        )


def rgb_bytes(image: Image.Image) -> np.ndarray:
    """The pixels [H, W, 3] of an image; gray images become RGB.

    Raises:
        ValueError: the image has more than 8 bits per color.
    """
    check_depth(image)
    return np.array(image.convert("RGB"))


def read_picture(
    path: str, width: int | None = None, height: int | None = None, *, upright: bool = False
) -> Tensor:
    """The bytes [3, H, W] of a picture file; gray pictures become RGB.

    Args:
        width, height: the expected size in pixels, if known. A picture of another size is turned
            by its EXIF orientation.
        upright: whether to apply the EXIF orientation in any case.

    Raises:
        DataError: the file is missing or damaged, or has another size.
    """
    try:
        with Image.open(path) as opened:
            image: Image.Image = opened
            if upright or (width is not None and opened.size != (width, height)):
                image = ImageOps.exif_transpose(opened)
            if width is not None and image.size != (width, height):
                came = "{} × {}".format(*opened.size)
                raise DataError(f"{path} is {came} pixels: the annotations say {width} × {height}")
            pixels = rgb_bytes(image)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # PIL's readers raise nearly any error for damaged bytes
        raise DataError(f"{path} is not a readable picture: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
