"""The next byte by either vocabulary, and chunk likelihoods, against small loops in float64."""

import itertools
import math

import pytest
import torch

from ctkd.errors import ConfigError
from ctkd.losses.alm import ALM, chunk_rows
from ctkd.losses.kd import kd_loss
from ctkd.losses.prefix_bytes import UNREACHED, PrefixBytes

BYTES = [bytes([value]) for value in b" abcxy"]
TOKENS = [b"a", b"ab", b" ", b" a", b" ab", b" cx", b"", b"\xff", b"b", b"c", b"xy"]


def rows(columns, seed, count=5):
    drawn = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, columns, generator=drawn, dtype=torch.float64)


def fitted(student=BYTES, teacher=TOKENS, **settings):
    transform = PrefixBytes(**settings)
    transform.fit(student, teacher)
    return transform


def loop(logits, tokens, prefix, columns):
    """log Σ exp z of each column's tokens: one byte each, and the rest."""
    sums = dict.fromkeys(columns, 0.0)
    for z, token in zip(logits.tolist(), tokens, strict=True):
        if prefix and (not token.startswith(prefix) or token == prefix):
            continue
        following = token[len(prefix) : len(prefix) + 1]
        sums[following if following in columns else "rest"] += math.exp(z)
    least = logits.max().item() - UNREACHED
    return [math.log(total) if total else least for total in sums.values()]


def test_columns_are_those_of_a_loop_for_each_prefix():
    transform, teacher = fitted(), rows(len(TOKENS), 1)
    columns = [b" ", b"a", b"b", b"c", b"x", "rest"]
    prefixes = torch.tensor([0, 1, 0, 1, 0])
    found = transform.of_teacher(teacher, prefixes)
    expected = [
        loop(row, TOKENS, b" " * prefix, columns)
        for row, prefix in zip(teacher, prefixes.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    student = rows(len(BYTES), 0)
    ours, theirs = transform(student, teacher)
    torch.testing.assert_close(theirs[0], found[0])
    torch.testing.assert_close(ours[0].tolist(), loop(student[0], BYTES, b"", columns))
    p = teacher[1].softmax(0)
    ends = p[2] / p[2:6].sum()
    torch.testing.assert_close(transform.mass_of_ends(teacher, prefixes)[1], ends)


def test_the_order_of_a_vocabulary_does_not_matter():
    student, teacher = rows(6, 0), rows(11, 1)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(2))
    plain = fitted()(student, teacher)
    other = fitted(teacher=[TOKENS[n] for n in order])(student, teacher[:, order])
    torch.testing.assert_close(plain, other)
    assert torch.equal(*(fitted(BYTES, BYTES)(student, student)))


def test_bytes_of_one_vocabulary_are_plain_kd():
    student, teacher = rows(6, 0).requires_grad_(), rows(6, 1)
    plain = kd_loss(student, teacher, 2.0)
    both = kd_loss(*fitted(BYTES, BYTES)(student, teacher), 2.0)
    torch.testing.assert_close(plain, both)
    one, two = (torch.autograd.grad(loss, student)[0] for loss in (plain, both))
    torch.testing.assert_close(one, two)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ConfigError, match="begin with 1 common bytes"):
        fitted([b"a", b"b"], [b"a", b"c"])
    with pytest.raises(ConfigError, match="a list of texts"):
        PrefixBytes(after=" ")


@pytest.mark.parametrize("tau", [1.0, 3.0, 100.0])
def test_alm_is_that_of_a_loop_and_its_gradient_the_closed_form(tau):
    a = torch.tensor([0.01, 0.7, 3.0, 40.0], dtype=torch.float64)
    b = torch.tensor([0.5, 0.69, 9.0, 2.0], dtype=torch.float64, requires_grad=True)
    none = torch.zeros(4, dtype=torch.int64)
    found = ALM()(chunk_rows(b), chunk_rows(a), none, tau)
    torch.testing.assert_close(found["ce"], b)
    u, v = (-a / tau).exp(), (-b / tau).exp()
    kl = u * (u / v).log() + (1 - u) * ((1 - u) / (1 - v)).log()
    torch.testing.assert_close(found["kd"], tau * kl)
    (gradient,) = torch.autograd.grad(found["kd"].sum(), b)
    torch.testing.assert_close(gradient, (u - v) / (1 - v))


def test_alm_rises_with_tau_to_its_limit():
    a, b = rows(1, 0, 200).abs(), rows(1, 1, 200).abs()
    given = chunk_rows(b.squeeze(1)), chunk_rows(a.squeeze(1)), torch.zeros(200).long()
    values = [ALM()(*given, tau)["kd"] for tau in (0.5, 1.0, 2.0, 8.0, 100.0, 1e5)]
    assert all((late >= early).all() for early, late in itertools.pairwise(values))
    limit = (a * (a / b).log() - a + b).squeeze(1)
    torch.testing.assert_close(values[-1], limit, rtol=1e-3, atol=1e-5)
