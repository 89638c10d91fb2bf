"""Photographs from files, as bytes."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ctkd.errors import DataError


def read_picture(path: str, width: int | None = None, height: int | None = None) -> Tensor:
    """[3, H, W] of bytes, whatever colours the file has.

    Args:
        width, height: what it must measure, in pixels, where that is known.

    Raises:
        DataError: it is missing, damaged, or of another size.
    """
    try:
        with Image.open(path) as image:
            if width is not None and image.size != (width, height):
                came = "{} × {}".format(*image.size)
                raise DataError(f"{path} is {came} pixels: the annotations say {width} × {height}")
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is no readable picture: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
