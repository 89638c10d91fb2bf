"""Photographs from files, as bytes."""

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ctkd.errors import DataError


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
            pixels = np.array(image.convert("RGB"))
    except (DataError, MemoryError):
        raise
    except Exception as error:  # PIL's readers raise nearly anything for damaged bytes
        raise DataError(f"{path} is no readable picture: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
