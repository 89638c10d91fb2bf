"""The outcome of a step that is computed in parts."""

import pytest
import torch

from ctkd.distiller import Outcome
from ctkd.engine.distributed.reduce import merge


def merged(*temperatures):
    """The temperature of a step with these parts."""
    return merge([Outcome(torch.zeros(()), {}, each) for each in temperatures]).temperature


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_one_temperature_stays_one_to_the_last_bit(parts):
    for value in (3.3, 15.621171, 0.1):
        found = merged(*[torch.tensor(value)] * parts)
        assert found.shape == ()
        assert torch.equal(found, torch.tensor(value))


def test_temperatures_of_rows_are_joined():
    assert merged(torch.tensor([[2.0], [3.0]]), torch.tensor([[4.0]])).tolist() == [[2], [3], [4]]
    assert merged(None, None) is None
