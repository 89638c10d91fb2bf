"""RandAugment and AutoAugment: PIL's operations; an image depends on its own numbers alone."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import v2

from ctkd.data.auto_augment import AutoAugment
from ctkd.data.rand_augment import OPERATIONS, RandAugment, cut_out

SIDE = 16


def affine(*matrix):
    return lambda image, v: image.transform(
        image.size, Image.AFFINE, tuple(m * v if isinstance(m, float) else m for m in matrix)
    )


PIL_OPERATIONS = {
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Brightness": lambda image, v: ImageEnhance.Brightness(image).enhance(v),
    "Color": lambda image, v: ImageEnhance.Color(image).enhance(v),
    "Contrast": lambda image, v: ImageEnhance.Contrast(image).enhance(v),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Identity": lambda image, _: image,
    "Invert": lambda image, _: ImageOps.invert(image),
    "Posterize": lambda image, v: ImageOps.posterize(image, int(v)),
    "Rotate": lambda image, v: image.rotate(v),
    "Sharpness": lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
    "ShearX": affine(1, 1.0, 0, 0, 1, 0),
    "ShearY": affine(1, 0, 0, 1.0, 1, 0),
    "Solarize": lambda image, v: ImageOps.solarize(image, v),
    "TranslateX": affine(1, 0, float(SIDE), 0, 1, 0),
    "TranslateY": affine(1, 0, 0, 0, 1, float(SIDE)),
}


def images(count=24, channels=3):
    """Smooth images of different brightness, so that no operation leaves them as they are."""
    drawn = torch.Generator().manual_seed(0)
    small = torch.rand(count, channels, 4, 4, generator=drawn)
    smooth = torch.nn.functional.interpolate(small, SIDE, mode="bicubic")
    scale = torch.rand(count, 1, 1, 1, generator=drawn)
    return (255 * scale * smooth).clamp(0, 255).to(torch.uint8)


def augment(operations=2, cutout=0.5, channels=3):
    return RandAugment(operations, cutout, torch.full((channels,), 77, dtype=torch.uint8))


def numbers(made, count, seed=1):
    return torch.rand(count, made.numbers, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_that_of_pil(name):
    operation, low, high = OPERATIONS[name]
    given = images()
    shares = torch.rand(len(given), 1, 1, 1, generator=torch.Generator().manual_seed(2))
    magnitudes = low + (high - low) * shares
    found = operation(given, magnitudes)
    assert found.dtype == torch.uint8
    wanted = []
    for image, magnitude in zip(given, magnitudes.flatten().tolist(), strict=True):
        whole = Image.fromarray(image.permute(1, 2, 0).numpy())
        wanted.append(np.asarray(PIL_OPERATIONS[name](whole, magnitude)).astype(int))
    difference = np.abs(found.permute(0, 2, 3, 1).numpy() - np.stack(wanted))
    # Of a moved image a pixel's source may lie on the border of two; no other rounding differs.
    moved = name.startswith(("Rotate", "Shear", "Translate"))
    assert np.mean(difference > 1) <= (0.01 if moved else 0)
    assert name == "Identity" or not torch.equal(found, given)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("make", "share"), [(augment, 0.9), (lambda channels: AutoAugment(), 0.5)])
def test_an_image_depends_on_its_own_numbers_alone(make, share, channels):
    given, made = images(channels=channels), make(channels=channels)
    drawn = numbers(made, len(given))
    whole, order = made(given, drawn), torch.randperm(len(given))
    parts = [made(given[i : i + 5], drawn[i : i + 5]) for i in range(0, len(given), 5)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(made(given[order], drawn[order]), whole[order])
    changed = (whole != given).flatten(1).any(1)
    assert changed.float().mean() > share
    assert not torch.equal(made(given, numbers(made, len(given), seed=3)), whole)


def test_without_operations_and_cutout_nothing_changes():
    made = augment(operations=0, cutout=0.0)
    assert torch.equal(made(images(), numbers(made, 24)), images())


def test_every_operation_is_drawn_as_often():
    made = augment()
    drawn = (numbers(made, 14_000)[:, 0] * len(OPERATIONS)).long()
    assert (drawn.bincount() - 1000).abs().max() < 150


def test_cutout_covers_a_square_around_its_center_and_no_more_than_the_image_holds():
    blank = torch.zeros(3, 2, 10, 10, dtype=torch.uint8)
    center = torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.99, 0.5]])
    covered = cut_out(blank, torch.full((3,), 0.4), center, torch.tensor([7, 9]).byte())
    inside = covered[:, 0] == 7
    assert torch.equal(inside, covered[:, 1] == 9)
    # From 3 to 7, both included, as PIL's rectangle; cut off on the left, and on the right.
    assert [int(value) for value in inside[0].nonzero().aminmax()] == [3, 7]
    assert inside[0].sum() == 25
    assert [int(value) for value in inside[1].nonzero().aminmax()] == [0, 4]
    assert inside[2].any(0).nonzero().flatten().tolist() == [7, 8, 9]


@pytest.mark.parametrize(("column", "sign"), [(0, 1), (1, 1), (0, -1)])
def test_auto_augment_has_the_published_policy(column, sign):
    """The policy for CIFAR-10 as torchvision has it; each part is PIL's operation."""
    published = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies
    given, count = images(len(published)), len(published)
    numbers = torch.full((count, 5), 0.9999)  # no probability is as high
    numbers[:, 0] = (torch.arange(count) + 0.5) / count
    numbers[:, 1 + column] = 0.0
    numbers[:, 3:] = 0.5 + 0.25 * sign
    found = AutoAugment()(given, numbers).permute(0, 2, 3, 1).numpy()
    for image, before, policy in zip(found, given, published, strict=True):
        name, share, level = policy[column]
        whole = Image.fromarray(before.permute(1, 2, 0).numpy())
        wanted = PIL_OPERATIONS[name](whole, magnitude(name, level, sign)) if share else whole
        assert np.mean(np.abs(image - np.asarray(wanted).astype(int)) > 1) <= 0.02


def magnitude(name, level, sign):
    """torchvision's magnitude of a level, in PIL's units."""
    make, signed = v2.AutoAugment._AUGMENTATION_SPACE[name]
    sizes = make(10, SIDE, SIDE)
    size = 0.0 if sizes is None else float(sizes[level]) * (sign if signed else 1)
    if name in ("Brightness", "Color", "Contrast", "Sharpness"):
        return 1 + size
    if name.startswith("Translate"):
        return size / SIDE
    return 256 * size if name == "Solarize" else size
