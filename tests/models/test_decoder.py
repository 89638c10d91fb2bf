"""The decoder computes attention as it is written, and keeps documents of a window apart."""

import math

import pytest
import torch

from ctkd.errors import ConfigError
from ctkd.models.decoder import Block, decoder
from ctkd.models.language_model import TokenInputs


@pytest.fixture
def network():
    torch.manual_seed(0)
    return decoder(num_classes=11, depth=2, width=8, heads=2).double().eval()


def test_attention_is_the_plain_sum_over_earlier_positions():
    torch.manual_seed(1)
    block, x = Block(8, 2).double(), torch.randn(1, 5, 8, dtype=torch.float64)
    queries, keys, values = block.project(x)[0].view(5, 3, 2, 4).unbind(1)  # [L, heads, 4]

    def turned(vector, position):
        pairs = [(vector[j], vector[j + 2], position * 10_000 ** (-j / 2)) for j in range(2)]
        first = [a * math.cos(t) - b * math.sin(t) for a, b, t in pairs]
        return torch.stack(first + [a * math.sin(t) + b * math.cos(t) for a, b, t in pairs])

    mixed = torch.zeros(5, 8, dtype=torch.float64)
    for head in range(2):
        for i in range(5):
            q = turned(queries[i, head], i)
            scores = torch.stack([q @ turned(keys[j, head], j) / 2 for j in range(i + 1)])
            weights = scores.softmax(0)
            mixed[i, 4 * head : 4 * head + 4] = sum(
                w * values[j, head] for j, w in enumerate(weights)
            )
    torch.testing.assert_close(block.attend(x, None)[0], block.merge(mixed), rtol=1e-5, atol=1e-7)


def test_two_documents_in_one_window_are_those_in_windows_of_their_own(network):
    one, two = torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 6, 7]])
    packed = TokenInputs(torch.cat([one, two], 1), torch.tensor([[0, 0, 0, 1, 1, 1, 1]]))
    apart = torch.cat([network(TokenInputs(one)), network(TokenInputs(two))])
    torch.testing.assert_close(network(packed), apart, rtol=1e-5, atol=1e-7)


def test_no_row_sees_a_later_token(network):
    ids = torch.tensor([[1, 2, 3, 4]])
    changed = torch.tensor([[1, 2, 3, 9]])
    torch.testing.assert_close(
        network(TokenInputs(ids))[:3], network(TokenInputs(changed))[:3], rtol=0, atol=0
    )


def test_only_rows_that_count_reach_the_head(network):
    ids, kept = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([0, 4])
    rows = network(TokenInputs(ids, kept=kept))
    torch.testing.assert_close(rows, network(TokenInputs(ids))[kept])


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(ConfigError, match=r"decoder.heads = 3: expected an even width per head"):
        decoder(width=64, heads=3)
