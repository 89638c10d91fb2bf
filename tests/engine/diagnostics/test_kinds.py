"""The landscape by kind of row: each group has the T* of its own rows."""

import math

import pytest
import torch

from ctkd.engine.diagnostics.kinds import landscape_of_kinds, peak, with_entropy
from ctkd.engine.diagnostics.warnings import faults_of_probe
from ctkd.engine.task import Kind, Rows
from ctkd.engine.tasks.token_kinds import frequency_deciles

GRID = [2**k for k in range(-1, 6)]


def bump(center):
    """A parabola in log T."""
    return [10 - (math.log(t) - math.log(center)) ** 2 for t in GRID]


def test_every_group_has_the_maximum_of_its_mean():
    losses = torch.tensor([bump(3.0)] * 10 + [bump(9.0)] * 10, dtype=torch.float64).T
    kinds = {"class": Kind(torch.tensor([0] * 10 + [1] * 8 + [2, -1]), ("noun", "verb", "rare"))}
    own = torch.arange(20, dtype=torch.float64)
    found = landscape_of_kinds(kinds, losses, GRID, own)
    assert found["kinds"]["class"]["noun"] == pytest.approx(
        {"rows": 10, "t_star": 3.0, "temperature": 4.5}
    )
    assert found["kinds"]["class"]["verb"]["t_star"] == pytest.approx(9.0)
    assert "rare" not in found["kinds"]["class"]  # one row says nothing
    assert found["rows_without_maximum"] == 0
    assert found["row_t_star"] == [4, 6, 8]  # the grid's points next to 3 and 9


def test_a_maximum_at_the_end_of_the_grid_is_that_end():
    assert peak(GRID, list(range(7))) == GRID[-1]
    found = landscape_of_kinds({}, torch.arange(7.0)[:, None].expand(7, 3), GRID, torch.ones(1))
    assert found["rows_without_maximum"] == 1


def test_quarters_are_by_the_teachers_entropy():
    sharpness = torch.tensor([1.0, 9.0, 3.0, 0.1])
    rows = Rows(torch.zeros(4, 3), sharpness[:, None] * torch.eye(4, 3), torch.zeros(4).long())
    quarters = with_entropy({}, rows)["teacher entropy"]
    assert quarters.groups[1] == 0  # the sharpest row
    assert sorted(quarters.groups.tolist()) == [0, 1, 2, 3]


def test_deciles_hold_a_tenth_of_the_text_each():
    ids = torch.tensor([5] * 50 + [2] * 30 + list(range(6, 26)))
    deciles = frequency_deciles(ids, 30)
    assert deciles[5] == 0
    assert deciles[2] == 5
    assert deciles[6] == 8
    assert deciles[25] == 9


@pytest.mark.parametrize(("start", "warned"), [(2.0, False), (16.0, True)])
def test_a_start_beyond_a_local_minimum_is_warned_of(start, warned):
    losses = [1.0, 3.0, 4.0, 2.0, 2.5, 2.6, 2.7]
    measured = {"temperatures": GRID, "losses": losses, "temperature": start, "t_star": 2.0}
    found = faults_of_probe({**measured, "bounds": [1.0, 21.0]}, first=True)
    assert len(found) == warned
    if warned:
        assert "T starts at 16, and a local minimum of L at T = 4 is between" in found[0]
