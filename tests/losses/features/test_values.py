"""Each feature loss against an independent float64 implementation, with loops over samples."""

import math

import pytest
import torch

from ctkd.registry import FEATURES
from ctkd.testing.feature_contract import example_features

SIZE = 6


def norm(vector):
    return math.sqrt(sum(x * x for x in vector))


def pkt(student, teacher, rows, loss):
    def shares(features):
        f = [[x / (norm(row) + 1e-7) for x in row] for row in features["pooled"].tolist()]
        c = [[(sum(a * b for a, b in zip(r, q, strict=True)) + 1) / 2 for q in f] for r in f]
        return [[x / sum(row) for x in row] for row in c]

    p, q = shares(teacher), shares(student)
    pairs = [(i, j) for i in range(SIZE) for j in range(SIZE)]
    return sum(p[i][j] * math.log((p[i][j] + 1e-7) / (q[i][j] + 1e-7)) for i, j in pairs) / SIZE**2


def sp(student, teacher, rows, loss):
    def gram(features):
        f = [m.flatten().tolist() for m in features["last"]]
        g = [[sum(a * b for a, b in zip(r, q, strict=True)) for q in f] for r in f]
        return [[x / norm(row) for x in row] for row in g]

    g, h = gram(student), gram(teacher)
    return sum((g[i][j] - h[i][j]) ** 2 for i in range(SIZE) for j in range(SIZE)) / SIZE**2


LOOPS = {"PKT": pkt, "SP": sp}


@pytest.mark.parametrize("name", [n for n in FEATURES if FEATURES.get(n).__module__[:5] == "ctkd."])
def test_a_loss_equals_its_definition(name):
    torch.manual_seed(0)
    student, teacher, rows = example_features(SIZE)
    loss = FEATURES.get(name)()
    loss.build(student, teacher)
    loss = loss.double()
    with torch.no_grad():
        wanted = LOOPS[name](student, teacher, rows, loss)
        found = loss(student, teacher, rows).item()
    assert found == pytest.approx(float(wanted), rel=1e-9)
