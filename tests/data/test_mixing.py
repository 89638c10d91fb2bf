"""Mixup, CutMix and erasing: pixels, targets, and the numbers that decide."""

import torch

from ctkd.data.mixing import Mixing, erase, rectangle, soft_targets
from ctkd.data.pixel_policy import AugmentedCrop
from ctkd.data.view_numbers import numbers_of

CPU = torch.device("cpu")


def splitmix(view, count):
    """SplitMix64 in Python's whole numbers, its 24 highest bits."""
    mask, found = 2**64 - 1, []
    for k in range(1, count + 1):
        x = (view + k * 0x9E3779B97F4A7C15) & mask
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & mask
        found.append(((x ^ x >> 31) >> 40) / 2**24)
    return found


def test_a_views_numbers_are_those_of_splitmix():
    views = [0, 1, 161, 2**40 + 5, 2**62 - 1]
    assert numbers_of(torch.tensor(views), 4).tolist() == [splitmix(view, 4) for view in views]
    many = numbers_of(torch.arange(4000), 3)
    assert (many.mean(0) - 0.5).abs().max() < 0.02
    assert (torch.corrcoef(many.T) - torch.eye(3)).abs().max() < 0.05


def batch(size=64):
    """Images of one color each, 1, 2, …, so that a mixed pixel shows its shares."""
    images = torch.arange(1.0, size + 1)[:, None, None, None].expand(size, 3, 8, 6)
    return images, images.roll(-size // 2, 0)


def test_mixup_blends_by_a_beta_share():
    images, partners = batch(4000)
    numbers = numbers_of(torch.arange(4000), 5)
    mixed, own = Mixing(0.2, 0.0, 1.0, CPU)(images, partners, numbers)
    expected = own[:, None, None, None] * images + (1 - own)[:, None, None, None] * partners
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-2)
    # Beta(α, α) has mean ½ and variance 1 / (4 (2α + 1))
    assert abs(own.mean() - 0.5) < 0.02
    assert abs(own.var() - 1 / (4 * 1.4)) < 0.01


def test_cutmix_puts_a_rectangle_of_the_partner_and_counts_its_pixels():
    images, partners = batch()
    mixed, own = Mixing(0.0, 1.0, 1.0, CPU)(images, partners, numbers_of(torch.arange(64), 5))
    from_partner = mixed == partners
    assert (from_partner | (mixed == images)).all()
    torch.testing.assert_close(own, 1 - from_partner.float().mean((1, 2, 3)))
    assert (own < 1).sum() > 0
    inside = from_partner[:, 0]
    rows, columns = inside.any(2), inside.any(1)
    assert torch.equal(inside, rows[:, :, None] & columns[:, None, :])  # rectangles


def test_a_share_of_the_images_is_mixed_and_the_others_keep_their_bits():
    images, partners = batch(2000)
    mixed, own = Mixing(0.8, 1.0, 0.25, CPU)(images, partners, numbers_of(torch.arange(2000), 5))
    same = (mixed == images).flatten(1).all(1)
    assert torch.equal(same, own == 1)
    assert 0.2 < (~same).float().mean() < 0.26  # a cut may be empty


def test_soft_targets_have_the_shares_and_sum_to_one():
    targets, partners, own = torch.tensor([0, 1, 2]), torch.tensor([1, 1, 0]), torch.tensor([0.75])
    found = soft_targets(targets, partners, own.expand(3), 4, 0.0)
    expected = [[0.75, 0.25, 0, 0], [0, 1, 0, 0], [0.25, 0, 0.75, 0]]
    torch.testing.assert_close(found, torch.tensor(expected))
    smooth = soft_targets(targets, partners, own.expand(3), 4, 0.2)
    torch.testing.assert_close(smooth, 0.8 * torch.tensor(expected) + 0.05)


def test_erasing_sets_a_rectangle_of_the_stated_area_to_zero():
    images = torch.ones(500, 3, 30, 40)
    erased = erase(images, numbers_of(torch.arange(500), 5), 0.4)
    share = (erased == 0).float().mean((1, 2, 3))
    assert abs((share > 0).float().mean() - 0.4) < 0.06
    hit = share[share > 0]
    assert hit.min() > 0.01
    assert hit.max() < 0.36


def test_a_rectangle_may_be_clipped_or_stays_inside():
    ends = torch.tensor([[0.0, 0.0], [0.999, 0.999]])
    side = torch.tensor([4.0, 4.0])
    _, area = rectangle(10, 10, side, side, ends, clipped=True)
    assert area.tolist() == [4, 4]  # a quarter of it, at a corner
    _, area = rectangle(10, 10, side, side, ends, clipped=False)
    assert area.tolist() == [16, 16]


def test_a_policy_is_a_function_of_the_view_and_draws_nothing():
    pixels = torch.randint(256, (3, 40, 50), dtype=torch.uint8)

    class Whole:
        size = 40

        def __call__(self, pixels, view):
            return pixels

    for policy in ("randaugment", "autoaugment", "trivialaugment"):
        transform = AugmentedCrop(Whole(), policy)
        state = torch.random.get_rng_state()
        found = [transform(pixels, view) for view in (3, 4, 5, 6, 3)]
        assert torch.equal(state, torch.random.get_rng_state())
        assert torch.equal(found[0], found[-1])
        assert any(not torch.equal(found[0], other) for other in found[1:-1])
        assert found[0].shape == pixels.shape
        assert found[0].dtype == torch.uint8
