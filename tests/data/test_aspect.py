"""Batches of pictures with alike shapes: a function of (seed, step)."""

import pytest
import torch

from ctkd.data.aspect import AspectBatches
from ctkd.errors import ConfigError

WIDE = torch.arange(50) % 3 > 0  # 33 wide, 17 tall


def indices(batches, step):
    return [index for index, _ in batches.items(step)]


def test_a_pass_has_each_picture_at_most_once_and_drops_less_than_a_batch():
    batches = AspectBatches(WIDE, 4, seed=0)
    assert batches.steps_per_pass == 12
    seen = [index for step in range(12) for index in indices(batches, step)]
    assert len(seen) == len(set(seen)) == 48


def test_all_but_the_leftovers_of_a_pass_are_of_one_shape():
    batches = AspectBatches(WIDE, 4, seed=0)
    mixed = [step for step in range(12) if len(set(WIDE[indices(batches, step)].tolist())) > 1]
    assert mixed in ([], [11])  # one wide and one tall are left over: no batch of them at all
    shapes = {bool(WIDE[indices(batches, step)][0]) for step in range(12)}
    assert shapes == {True, False}


def test_leftovers_make_a_mixed_batch():
    batches = AspectBatches(torch.tensor([True] * 7 + [False] * 5), 4, seed=0)
    assert batches.steps_per_pass == 3
    assert sorted(i for step in range(3) for i in indices(batches, step)) == list(range(12))


def test_passes_differ_and_different_pictures_are_dropped():
    batches = AspectBatches(WIDE, 4, seed=0)
    passes = [[indices(batches, 12 * p + step) for step in range(12)] for p in range(6)]
    assert len({str(one) for one in passes}) == 6
    dropped = {frozenset(range(50)) - {i for batch in one for i in batch} for one in passes}
    assert len(dropped) > 1


def test_a_step_is_the_seeds_and_its_own_alone():
    one, other = AspectBatches(WIDE, 4, seed=0), AspectBatches(WIDE, 4, seed=0)
    torch.manual_seed(5)
    later = [other.items(step) for step in (40, 3, 17)]  # in any order, without the steps before
    assert later == [one.items(step) for step in (40, 3, 17)]
    assert AspectBatches(WIDE, 4, seed=1).items(3) != one.items(3)


def test_a_view_depends_on_the_pass_and_the_picture_and_not_on_the_batch_size():
    small, large = AspectBatches(WIDE, 4, seed=0), AspectBatches(WIDE, 8, seed=0)
    views = dict(item for step in range(12) for item in small.items(step))
    also = dict(item for step in range(6) for item in large.items(step))
    assert all(views[index] == view for index, view in also.items() if index in views)
    again = dict(item for step in range(12, 24) for item in small.items(step))
    assert all(views[index] != view for index, view in again.items() if index in views)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ConfigError, match="at most the number of training images, 50"):
        AspectBatches(WIDE, 60, seed=0)
