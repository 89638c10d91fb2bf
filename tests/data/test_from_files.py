"""What is common to data sets of image files: the normalization of a batch of bytes."""

import pytest
import torch
from torchvision.transforms.v2 import functional

from ctkd.data.from_files import Normalization
from ctkd.data.imagenet import ImageNet


def images(count: int, height: int, width: int) -> torch.Tensor:
    """Random bytes [count, 3, height, width], channels last."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, height, width, 3)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return pixels.permute(0, 3, 1, 2)


# 5 × 224 × 224 pixels are several pieces and a part; 1 × 7 × 5 are less than one.
@pytest.mark.parametrize(("count", "height", "width"), [(5, 224, 224), (1, 7, 5), (3, 320, 300)])
def test_bytes_are_normalized_as_torchvision_does(count: int, height: int, width: int) -> None:
    dataset = ImageNet(size=width, resize=width)
    pixels = images(count, height, width)
    expected = functional.normalize(pixels.float() / 255, list(dataset.mean), list(dataset.std))
    normal = Normalization(dataset, torch.device("cpu"))(pixels)
    assert normal.dtype == torch.float32
    assert normal.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(normal, expected, rtol=1e-6, atol=1e-6)


def test_an_image_is_normalized_alike_in_whatever_batch() -> None:
    normalize = Normalization(ImageNet(), torch.device("cpu"))
    pixels = images(7, 224, 224)
    whole = normalize(pixels)
    for cut in (1, 2, 3):
        assert torch.equal(whole, torch.cat([normalize(part) for part in pixels.split(cut)]))
