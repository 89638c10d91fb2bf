"""Columns of two vocabularies, and the losses on them, against small loops."""

import pytest
import torch

from ctkd.errors import ConfigError
from ctkd.losses.columns import SharedColumns, SortedColumns
from ctkd.losses.kd import kd_loss
from ctkd.losses.uld import ULD

WORDS = [b"a", b"b", b" the", b"", b"ing", b" of", b"\xc3", b"x", b"yz"]


def rows(columns, seed, count=6):
    drawn = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, columns, generator=drawn, dtype=torch.float64)


def shared(student, teacher):
    transform = SharedColumns()
    transform.fit(student, teacher)
    return transform


def test_shared_columns_of_one_vocabulary_are_plain_kd_to_the_bit():
    student, teacher = rows(9, 0).float().requires_grad_(), rows(9, 1).float()
    plain = kd_loss(student, teacher, 2.0)
    both = kd_loss(*shared(WORDS, WORDS)(student, teacher), 2.0)
    assert torch.equal(plain, both)
    assert torch.equal(*(torch.autograd.grad(loss, student)[0] for loss in (plain, both)))


def test_permuting_either_vocabulary_changes_nothing():
    other = [b" of", b"z", b"x", b"ing", b"b", b"", b"q"]
    student, teacher = rows(9, 0), rows(7, 1)
    plain = shared(WORDS, other)(student, teacher)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    permuted = shared(WORDS, [other[n] for n in order])(student, teacher[:, order])
    assert all(map(torch.equal, plain, permuted))
    assert plain[0].shape == (6, 4)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    permuted = shared([WORDS[n] for n in order], other)(student[:, order], teacher)
    torch.testing.assert_close(kd_loss(*permuted, 2.0), kd_loss(*plain, 2.0))
    one, two = SortedColumns()(student, teacher), SortedColumns()(student[:, order], teacher)
    assert all(map(torch.equal, one, two))


def test_vocabularies_that_share_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"share 1: expected 2 or more\. Set Method\.transform"):
        shared(WORDS, [b"a", b"the", b""])
    with pytest.raises(ValueError, match="call fit"):
        SharedColumns()(rows(9, 0), rows(9, 1))


def uld(student, teacher, temperature, **settings):
    columns = SortedColumns(**settings)(student, teacher)
    return ULD()(*columns, torch.zeros(len(student)).long(), temperature)["kd"]


def loop(student, teacher, temperature, k):
    """T · Σ |p_(i) − q_(i)| of each row, by lists; absent tokens have probability 0."""
    found = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        softened = []
        for z in (s, t):
            e = [2.718281828459045 ** (x / temperature) for x in sorted(z, reverse=True)[:k]]
            softened.append([x / sum(e) for x in e] + [0.0] * (k - len(e)))
        found.append(temperature * sum(abs(p - q) for p, q in zip(*softened, strict=True)))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_uld_is_that_of_a_loop(temperature):
    student, teacher = rows(5, 0), rows(8, 1)
    for settings, k in (({}, 5), ({"k": 3}, 3), ({"padded": True}, 8)):
        found = uld(student, teacher, temperature, **settings)
        torch.testing.assert_close(found, loop(student, teacher, temperature, k))


def test_the_limit_of_t_times_uld_is_the_mean_difference_of_sorted_centered_logits():
    student, teacher = rows(7, 0), rows(7, 1)
    sort = [(z - z.mean(1, keepdim=True)).sort(1).values for z in (student, teacher)]
    limit = (sort[0] - sort[1]).abs().mean(1)
    errors = [(uld(student, teacher, t) - limit).abs().max().item() for t in (1e3, 1e4, 1e5)]
    assert errors[0] < 0.05
    assert errors[1:] == pytest.approx([errors[0] / 10, errors[0] / 100], rel=0.05)


def test_padded_columns_have_no_limit_and_a_finite_gradient():
    student, teacher = rows(4, 0).float().requires_grad_(), rows(8, 1).float()
    heat = torch.tensor(1e4, requires_grad=True)
    loss = uld(student, teacher, heat, padded=True).mean()
    assert loss.item() == pytest.approx(1e4 * 2 * (1 - 4 / 8), rel=1e-3)
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (student, heat)))
