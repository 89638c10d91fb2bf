"""Each feature loss against an independent float64 implementation, with loops over samples."""

import itertools
import math

import numpy as np
import pytest
import torch

from ctkd.registry import FEATURES
from ctkd.testing.feature_contract import CLASSES, SAMPLES, TEACHER, example_features

SIZE = 6
STAGES = ("stage1", "stage2", "stage3")
NAMES = [n for n in FEATURES if FEATURES.get(n).__module__.startswith("ctkd.")]


def weights(module):
    return [p.detach().numpy() for p in module.parameters()]


def unit(vector):
    return vector / math.sqrt(sum(x * x for x in vector))


def pool(f, size):
    """Means over the blocks of a map [C, H, H]."""
    n = len(f[0]) // size
    blocks = range(size)
    return np.array(
        [
            [[c[n * i : n * i + n, n * j : n * j + n].mean() for j in blocks] for i in blocks]
            for c in f
        ]
    )


def alike(s, t):
    size = min(len(s[0]), len(t[0]))
    return pool(s, size), pool(t, size)


def one_by_one(kernel, f):
    """A 1x1 convolution [D, C, 1, 1] of a map."""
    d, h = len(kernel), len(f[0])
    pixels = itertools.product(range(h), repeat=2)
    out = np.zeros((d, h, h))
    for i, j in pixels:
        out[:, i, j] = kernel[:, :, 0, 0] @ f[:, i, j]
    return out


def convolved(kernel, f, stride=1, padding=0, bias=0.0):
    f = np.pad(f, ((0, 0), (padding, padding), (padding, padding)))
    k = kernel.shape[-1]
    size = (f.shape[-1] - k) // stride + 1
    out = np.zeros((len(kernel), size, size))
    for i, j in itertools.product(range(size), repeat=2):
        part = f[:, stride * i : stride * i + k, stride * j : stride * j + k]
        out[:, i, j] = (kernel * part).sum((1, 2, 3))
    return out + np.reshape(bias, (-1, 1, 1))


def normalized(batch):
    """Batch normalization in train mode, with weight 1 and bias 0, of [N, C, …]."""
    batch = np.array(batch)
    for c in range(batch.shape[1]):
        part = batch[:, c]
        batch[:, c] = (part - part.mean()) / math.sqrt(part.var() + 1e-5)
    return batch


def as_map(f):
    return f.reshape(*f.shape, 1, 1) if f.ndim == 2 else f


def pkt(student, teacher, rows, loss):
    def shares(features):
        f = [row / (math.sqrt(sum(row**2)) + 1e-7) for row in features["pooled"]]
        c = np.array([[(sum(a * b) + 1) / 2 for b in f] for a in f])
        return [row / sum(row) for row in c]

    p, q = shares(teacher), shares(student)
    pairs = itertools.product(range(SIZE), repeat=2)
    logs = [p[i][j] * math.log((p[i][j] + 1e-7) / (q[i][j] + 1e-7)) for i, j in pairs]
    return sum(logs) / SIZE**2


def sp(student, teacher, rows, loss):
    def gram(features):
        f = [m.flatten() for m in features["last"]]
        return np.array([unit(np.array([sum(a * b) for b in f])) for a in f])

    return ((gram(student) - gram(teacher)) ** 2).sum() / SIZE**2


def at(student, teacher, rows, loss):
    total = 0.0
    for name in STAGES:
        for s, t in zip(student[name], teacher[name], strict=True):
            q_s, q_t = (unit((f**2).mean(0).flatten()) for f in alike(s, t))
            total += ((q_s - q_t) ** 2).mean() / SIZE
    return total


def fitnet(student, teacher, rows, loss):
    kernel, bias, *_ = weights(loss.regressors[0])
    made = [convolved(kernel, f, bias=bias) for f in student["stage2"]]
    return ((np.maximum(normalized(made), 0) - teacher["stage2"]) ** 2).mean()


def vid(student, teacher, rows, loss):
    total = 0.0
    for name, regressor in zip(STAGES, loss.regressors, strict=True):
        first, second, third = (p for p in weights(regressor) if p.ndim == 4)
        raw = regressor.log_scale.detach().numpy()
        variance = float(np.log1p(np.exp(raw[0])) + 1e-5)
        assert variance == pytest.approx(5)
        for s, t in zip(student[name], teacher[name], strict=True):
            s, t = alike(s, t)
            hidden = np.maximum(one_by_one(first, s), 0)
            mean = one_by_one(third, np.maximum(one_by_one(second, hidden), 0))
            total += (((mean - t) ** 2 / variance + math.log(variance)) / 2).mean() / SIZE
    return total


def smooth_l1(x, y):
    d = abs(x - y)
    return d * d / 2 if d < 1 else d - 0.5


def rkd(student, teacher, rows, loss):
    def distances(f):
        d = np.array([[math.sqrt(sum((a - b) ** 2)) for b in f] for a in f])
        return d / d[d > 0].mean()

    def cosine(f, i, j, k):
        return 0.0 if i in (j, k) else float(unit(f[j] - f[i]) @ unit(f[k] - f[i]))

    s, t = student["pooled"], teacher["pooled"]
    d, e = distances(s), distances(t)
    far = np.mean([smooth_l1(a, b) for a, b in zip(d.flat, e.flat, strict=True)])
    triples = list(itertools.product(range(SIZE), repeat=3))
    turned = np.mean([smooth_l1(cosine(s, *ijk), cosine(t, *ijk)) for ijk in triples])
    return 25 * far + 50 * turned


def srrl(student, teacher, rows, loss):
    matrix = weights(loss.regressor)[0]
    made = np.maximum(normalized([matrix @ f for f in student["pooled"]]), 0)
    w, b = weights(loss.classifier)
    logits = np.array([w @ f + b for f in made])
    return ((made - teacher["pooled"]) ** 2).mean() + (
        (logits - rows.teacher_logits.numpy()) ** 2
    ).mean()


def simkd(student, teacher, rows, loss):
    first, second, third = (p for p in weights(loss.projector) if p.ndim == 4)
    pairs = [alike(s, t) for s, t in zip(student["last"], teacher["final"], strict=True)]
    made = [s for s, _ in pairs]
    for kernel, padding in ((first, 0), (second, 1), (third, 0)):
        made = np.maximum(normalized([convolved(kernel, f, padding=padding) for f in made]), 0)
    return ((made - np.array([t for _, t in pairs])) ** 2).mean()


def crd(student, teacher, rows, loss):
    """With the banks, the negatives and Z as they were before the step."""
    kept = [b.clone().numpy() for b in (loss.student_bank, loss.teacher_bank)]
    others = loss.drawn(rows.targets, rows.indices, loss.seed, loss.calls).tolist()
    total = 0.0
    for side, (features, bank) in enumerate(((student, kept[1]), (teacher, kept[0]))):
        w, b = weights(loss.embeddings[side])
        v = [unit(w @ f + b) for f in features["pooled"]]
        chosen = [[int(rows.indices[i]), *others[i]] for i in range(SIZE)]
        raw = [[math.exp(float(v[i] @ bank[k]) / 0.07) for k in chosen[i]] for i in range(SIZE)]
        z = np.mean(raw) * SAMPLES
        noise = (len(raw[0]) - 1) / SAMPLES
        for own, *rest in (np.array(row) / z for row in raw):
            total -= math.log(own / (own + noise + 1e-7)) / SIZE
            total -= sum(math.log(noise / (p + noise + 1e-7)) for p in rest) / SIZE
    return total


def reviewkd(student, teacher, rows, loss):
    total, rest = 0.0, None
    names = [("pooled", "pooled"), *((f"stage{k}", f"before{k}") for k in (3, 2, 1))]
    for (ours, theirs), fuse in zip(names, loss.fusions, strict=True):
        s, t = (
            f.reshape(*f.shape, 1, 1) if f.ndim == 2 else f
            for f in (student[ours], teacher[theirs])
        )
        project, finish = (
            fuse.project[0].weight.detach().numpy(),
            fuse.finish[0].weight.detach().numpy(),
        )
        mixed = normalized([one_by_one(project, f) for f in s])
        if rest is not None:
            rest = enlarged(rest, mixed.shape[-1])
            kernel, bias = weights(fuse.weigh)
            for n in range(SIZE):
                both = np.concatenate([mixed[n], rest[n]])
                share = 1 / (1 + np.exp(-(one_by_one(kernel, both) + bias[:, None, None])))
                mixed[n] = mixed[n] * share[0] + rest[n] * share[1]
        rest = enlarged(mixed, t.shape[-1])
        made = normalized([convolved(finish, f, padding=1) for f in rest])
        sizes = [t.shape[-1], *(size for size in (4, 2, 1) if size < t.shape[-1])]
        errors = [
            np.mean([(pool(a, size) - pool(b, size)) ** 2 for a, b in zip(made, t, strict=True)])
            for size in sizes
        ]
        shares = [0.5**k for k in range(len(sizes))]
        total += np.dot(errors, shares) / sum(shares)
    return total


def enlarged(batch, size):
    """Nearest neighbors, also where the map becomes smaller."""
    source = np.arange(size) * batch.shape[-1] // size
    return batch[:, :, source][:, :, :, source]


LOOPS = {name: globals()[name.lower()] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_equals_its_definition(name):
    torch.manual_seed(0)
    student, teacher, rows = example_features(SIZE)
    loss = FEATURES.get(name)(**({"negatives": 7} if name == "CRD" else {}))
    loss.build(student, teacher)
    if loss.needs == ("classifier",):
        loss.use_classifier(torch.nn.Linear(TEACHER["pooled"][0], CLASSES).double())
    loss.use_samples(torch.arange(SAMPLES) % CLASSES)
    loss = loss.double()
    sides = [{k: f.numpy() for k, f in side.items()} for side in (student, teacher)]
    wanted = LOOPS[name](*sides, rows, loss)
    found = loss(student, teacher, rows).item()
    assert found == pytest.approx(float(wanted), rel=1e-9)
