"""The negatives of CRD: samples of other classes, without repetition, evenly, from (seed, step)."""

import pytest
import torch

from ctkd.errors import ConfigError
from ctkd.losses.features.negatives import Negatives

SIZES = (7, 20, 13)
TARGETS = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))[
    torch.randperm(40, generator=torch.Generator().manual_seed(1))
]


def drawn(rows, step, count=15, seed=3):
    indices = torch.arange(len(rows))
    return Negatives(TARGETS, count)(rows, indices, torch.tensor(seed), torch.tensor(step))


def test_they_are_of_other_classes_and_differ():
    rows = torch.tensor([0, 1, 2, 1, 0])
    for step in range(50):
        found = drawn(rows, step)
        assert (TARGETS[found] != rows[:, None]).all()
        assert all(len(set(row)) == 15 for row in found.tolist())
    assert torch.equal(drawn(rows, 4), drawn(rows, 4))
    assert not torch.equal(drawn(rows, 4), drawn(rows, 5))
    assert not torch.equal(drawn(rows, 4), drawn(rows, 4, seed=4))
    assert drawn(rows, 4)[1].tolist() != drawn(rows, 4)[3].tolist()


def test_where_there_are_too_few_they_repeat_evenly():
    found = drawn(torch.tensor([1]), 0, count=40)[0]
    counts = torch.bincount(found, minlength=40)[TARGETS != 1]
    assert counts.tolist() == [2] * 20


def test_each_sample_of_another_class_is_drawn_equally_often():
    steps, rows = 400, torch.tensor([0] * 50)
    draw, seed, counts = Negatives(TARGETS, 15), torch.tensor(3), torch.zeros(40)
    for step in range(steps):
        counts += torch.bincount(
            draw(rows, torch.arange(50), seed, torch.tensor(step)).flatten(), minlength=40
        )
    share = counts[TARGETS != 0] / (steps * 50 * 15)
    # 20,000 rows draw each of 33 samples with 15/33: a standard deviation of 0.8 %
    torch.testing.assert_close(share, torch.full((33,), 1 / 33), rtol=0.04, atol=0)


def test_one_class_has_no_negatives():
    with pytest.raises(ConfigError, match="found 5 training samples of 1 classes"):
        Negatives(torch.ones(5, dtype=torch.int64), 3)
