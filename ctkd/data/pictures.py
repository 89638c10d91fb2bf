"""Pixels of image files as bytes, of 8 bits per color."""

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ctkd.errors import DataError

# Pixels of these kinds have more than 8 bits. PIL would cut them at 255, so that a picture of 16
# bits is white. The file does not say which range it uses (12 bits of 16, say): none is guessed.
DEEP_MODES = ("I", "F")


def check_depth(image: Image.Image) -> None:
    """Raises ValueError if an image has more than 8 bits per color. Decodes nothing."""
    if image.mode in DEEP_MODES or image.mode.startswith("I;"):
        raise ValueError(
            f"it has more than 8 bits per color (PIL's mode {image.mode}): convert it to 8 bits, "
            "scaled by the range that its pixels use"
        )


def rgb_bytes(image: Image.Image) -> np.ndarray:
    """The pixels [H, W, 3] of an image, in color whether the file is or not.

    Raises:
        ValueError: it has more than 8 bits per color.
    """
    check_depth(image)
    return np.array(image.convert("RGB"))


def read_picture(
    path: str, width: int | None = None, height: int | None = None, *, upright: bool = False
) -> Tensor:
    """[3, H, W] of bytes, in color whether the file is or not.

    Args:
        width, height: the size that it must have, in pixels, where that is known. A picture of
            another size is turned as its EXIF orientation says.
        upright: whether to turn it as its EXIF orientation says in any case.

    Raises:
        DataError: it is missing, damaged, or of another size.
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
    except Exception as error:  # PIL's readers raise nearly anything for damaged bytes
        raise DataError(f"{path} is not a readable picture: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
