"""TokenTemperature: ten numbers of a row, the same policy for any number of classes."""

import math

import pytest
import torch

from ctkd.temperature.token import TokenTemperature, row_features


def numbers(logits):
    """Entropy, largest probability, gap and deviation of one row, by loops."""
    total = sum(math.exp(z) for z in logits)
    p = [math.exp(z) / total for z in logits]
    first, second = sorted(logits, reverse=True)[:2]
    mean = sum(logits) / len(logits)
    deviation = math.sqrt(sum((z - mean) ** 2 for z in logits) / len(logits))
    entropy = -sum(a * math.log(a) for a in p) / math.log(len(logits))
    return p, [entropy, max(p), math.tanh((first - second) / 5), deviation / 10]


def test_the_features_are_those_of_a_loop():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 7, dtype=torch.float64) * 3
    expected = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        (q, ours), (p, theirs) = numbers(s), numbers(t)
        kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        expected.append([*ours, *theirs, math.log1p(kl), p[s.index(max(s))]])
    torch.testing.assert_close(
        row_features(student, teacher), torch.tensor(expected, dtype=torch.float64)
    )


def test_one_policy_serves_any_vocabulary_and_starts_at_2():
    policy = TokenTemperature()
    assert sum(p.numel() for p in policy.parameters()) == 385
    for classes in (2, 10, 5000):
        temperature = policy(torch.randn(4, classes), torch.randn(4, classes), 0.0)
        assert temperature.flatten().tolist() == pytest.approx([2.0] * 4)
    assert policy.bounds == (1.0, 6.0)
