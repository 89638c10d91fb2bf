"""Views: an integer names a crop and a flip, each as likely as in torchvision's transforms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import v2

from ctkd.data.augment import CropFlip
from ctkd.seeds import generator

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))


def images(count, height, width, channels):
    size = (count, height, width, channels)
    return torch.randint(0, 256, size, generator=generator("images"), dtype=torch.uint8)


def naive(image, view, padding):
    """The view of one image [H, W, C], pixel by pixel, as [C, H, W]."""
    height, width, channels = image.shape
    crop, mirrored = view % (2 * padding + 1) ** 2, view >= (2 * padding + 1) ** 2
    top, left = divmod(crop, 2 * padding + 1)
    out = torch.zeros(channels, height, width, dtype=image.dtype)
    for row in range(height):
        for column in range(width):
            across = width - 1 - column if mirrored else column
            y, x = row + top - padding, across + left - padding
            if 0 <= y < height and 0 <= x < width:
                out[:, row, column] = image[y, x]
    return out


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.integers(0, 3), st.booleans())
def test_every_view_is_the_naive_crop_pixel_by_pixel(shape, padding, flip):
    views = CropFlip(padding, flip)
    original = images(*shape)
    which = torch.arange(views.count)
    indices = which % shape[0]
    taken = views.take(views.pad(original), indices, which)
    for view, index in enumerate(indices.tolist()):
        assert torch.equal(taken[view], naive(original[index], view, padding))


def test_the_cifar_transforms_have_162_views_and_digits_nine():
    assert CropFlip(4, flip=True).count == 162
    assert CropFlip(1, flip=False).count == 9
    assert CropFlip(0, flip=False).count == 1


@pytest.mark.parametrize(("padding", "flip"), [(0, False), (1, False), (4, True)])
def test_the_identity_view_is_the_image(padding, flip):
    views, original = CropFlip(padding, flip), images(5, 8, 7, 3)
    indices = torch.tensor([4, 0, 2])
    taken = views.take(views.pad(original), indices, torch.full((3,), views.identity))
    assert torch.equal(taken, original[indices].permute(0, 3, 1, 2))


def test_views_are_bytes_with_channels_last():
    views = CropFlip(2, flip=True)
    taken = views.take(views.pad(images(6, 8, 8, 3)), torch.arange(6), torch.arange(6))
    assert taken.dtype == torch.uint8
    assert taken.shape == (6, 3, 8, 8)
    assert taken.is_contiguous(memory_format=torch.channels_last)


def test_the_border_is_black():
    padded = CropFlip(3, flip=False).pad(torch.full((2, 4, 5, 3), 255, dtype=torch.uint8))
    assert padded.shape == (2, 10, 11, 3)
    assert padded[:, 3:7, 3:8].eq(255).all()
    assert padded.sum() == 255 * 2 * 4 * 5 * 3


def test_draws_are_uniform_over_the_views():
    views = CropFlip(4, flip=True)
    counts = (
        torch.stack([views.draw(1000, seed, "views", 1) for seed in range(50)])
        .flatten()
        .bincount(minlength=162)
    )
    assert len(counts) == 162
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_draws_depend_on_every_name_and_on_nothing_else():
    views = CropFlip(4, flip=True)
    drawn = views.draw(500, 0, "views", 1)
    torch.manual_seed(99)
    assert torch.equal(views.draw(500, 0, "views", 1), drawn)
    for other in [(1, "views", 1), (0, "views", 2), (0, "probe", 1)]:
        # Two independent views agree with probability 1/162: about 3 of 500.
        assert views.draw(500, *other).eq(drawn).sum() < 20


def test_a_samples_view_does_not_depend_on_the_epochs_of_others():
    drawn = [CropFlip(1, flip=False).draw(2000, 0, "views", epoch) for epoch in (1, 2)]
    agreeing = drawn[0].eq(drawn[1]).float().mean().item()
    assert abs(agreeing - 1 / 9) < 5 * (8 / 81 / 2000) ** 0.5


def test_the_distribution_is_that_of_torchvisions_crop_and_flip():
    padding, size = 2, 6
    views = CropFlip(padding, flip=True)
    image = torch.arange(1, size * size + 1, dtype=torch.uint8).view(1, size, size, 1)  # all differ
    which = torch.arange(views.count)
    ours = views.take(views.pad(image), torch.zeros_like(which), which).flatten(1)
    assert len(ours.unique(dim=0)) == views.count  # so a picture tells its view
    theirs = v2.Compose([v2.RandomCrop(size, padding=padding), v2.RandomHorizontalFlip()])
    torch.manual_seed(0)
    picture = image[0].permute(2, 0, 1)
    counts = torch.zeros(views.count)
    for _ in range(3000):
        (view,) = ours.eq(theirs(picture).flatten()).all(1).nonzero()  # it is one of ours
        counts[view] += 1
    drawn = views.draw(3000, "ours").bincount(minlength=views.count)
    table = torch.stack([counts, drawn.float()]).numpy()
    assert stats.chi2_contingency(table).pvalue > 1e-4
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4
