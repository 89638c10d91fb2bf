"""Means over groups of rows: sums that ranks and steps can add up."""

import pytest
import torch

from ctkd.losses.foreground import GROUPS, row_groups
from ctkd.losses.row_groups import group_means, group_sums

TARGETS = torch.tensor([0, 3, 0, 1, 0])
LOSS = torch.tensor([1.0, 2.0, 3.0, 4.0, 8.0])


def test_means_over_the_rows_of_each_group():
    sums = group_sums({"kd": LOSS, "whole": LOSS.sum()}, row_groups(TARGETS), GROUPS, 5)
    means = group_means({name: value.item() for name, value in sums.items()})
    assert means == {
        "share_background": pytest.approx(0.6),
        "share_foreground": pytest.approx(0.4),
        "kd_background": pytest.approx(4.0),
        "kd_foreground": pytest.approx(3.0),
    }


def test_parts_of_a_step_add_up_to_the_whole():
    whole = group_sums({"kd": LOSS}, row_groups(TARGETS), GROUPS, 5)
    parts = [
        group_sums({"kd": LOSS[cut]}, row_groups(TARGETS[cut]), GROUPS, 5)
        for cut in (slice(0, 2), slice(2, 5))
    ]
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts), value)


def test_a_group_without_rows_has_no_mean_and_a_bad_row_stays_in_its_group():
    loss = torch.tensor([1.0, float("nan")])
    sums = group_sums({"kd": loss}, torch.tensor([0, 1]), (*GROUPS, "none"), 2)
    means = group_means({name: value.item() for name, value in sums.items()})
    assert means["kd_background"] == 1.0
    assert means["kd_foreground"] != means["kd_foreground"]
    assert means["share_none"] == 0.0
    assert "kd_none" not in means


def test_nothing_of_it_has_a_gradient():
    sums = group_sums({"kd": LOSS.clone().requires_grad_()}, row_groups(TARGETS), GROUPS, 5)
    assert not any(value.requires_grad for value in sums.values())
