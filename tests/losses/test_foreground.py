"""Rows of a detector: their groups and their weights."""

import torch

from ctkd.losses.foreground import GROUPS, row_groups, row_weights

TARGETS = torch.tensor([0, 3, 0, 1, 0])


def test_class_0_is_the_background():
    assert [GROUPS[place] for place in row_groups(TARGETS)] == [
        "background",
        "foreground",
        "background",
        "foreground",
        "background",
    ]


def test_weights_of_rows():
    assert row_weights(TARGETS).tolist() == [1, 1, 1, 1, 1]
    assert row_weights(TARGETS, 0.25).tolist() == [0.25, 1, 0.25, 1, 0.25]
