"""The exact adversary, compared with a grid search over L(T) in float64."""

import math

import pytest
import torch

from ctkd.losses.kd import kd_loss
from ctkd.temperature.exact import ExactTemperature, derivatives


def pair(seed, peak=10.0, share=0.2, noise=0.5, rows=64, dtype=torch.float32):
    """Logits of a teacher that is sure of one class, and of a student that has a share of them."""
    drawn = torch.Generator().manual_seed(seed)
    targets = torch.randint(20, (rows, 1), generator=drawn)
    teacher, other = torch.randn(2, rows, 20, generator=drawn, dtype=torch.float64)
    teacher.scatter_add_(1, targets, torch.full((rows, 1), peak, dtype=torch.float64))
    return (share * teacher + noise * other).to(dtype), teacher.to(dtype)


def best_of_grid(student, teacher, low, high, sign=1.0):
    """T* and L(T*): a grid of 400 temperatures, and another between the best one's neighbors."""
    low, high = math.log(low), math.log(high)
    for _ in range(2):
        grid = torch.linspace(low, high, 400, dtype=torch.float64).exp().tolist()
        losses = [kd_loss(student.double(), teacher.double(), t).item() for t in grid]
        k = max(range(400), key=lambda k: sign * losses[k])
        low, high = math.log(grid[max(k - 1, 0)]), math.log(grid[min(k + 1, 399)])
    return grid[k], losses[k]


def regret(student, teacher, temperature, loss):
    """1 − L(T) / L(T*)."""
    own = kd_loss(student.double(), teacher.double(), temperature.double().item()).item()
    return 1 - own / loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("drawn", [(0,), (1, 20, 0.5, 1), (2, 6, 0, 0.1), (3, 14, 0.8, 0.3)])
def test_it_is_the_argmax_of_the_loss(drawn, dtype):
    student, teacher = pair(*drawn, dtype=dtype)
    expected, loss = best_of_grid(student, teacher, 1, 21)
    assert 1.01 < expected < 20.9  # else nothing but a bound is tested
    temperature = ExactTemperature()(student, teacher, 0.0)
    assert temperature.item() == pytest.approx(expected, rel=2e-3)
    assert abs(regret(student, teacher, temperature, loss)) < 1e-6


def test_a_maximum_outside_of_the_range_gives_the_bound():
    student, teacher = pair(0)
    inside = ExactTemperature()(student, teacher, 0.0).item()
    assert ExactTemperature(inside + 2, 5.0)(student, teacher, 0.0).item() == inside + 2
    assert ExactTemperature(1.0, inside - 1.5)(student, teacher, 0.0).item() == inside - 0.5


def test_the_cooperative_twin_is_the_argmin():
    student, teacher = pair(0)
    expected, _ = best_of_grid(student, teacher, 1, 21, sign=-1.0)
    found = ExactTemperature(cooperative=True)(student, teacher, 0.0).item()
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("weight", [1.0, 1.5])
def test_the_larger_of_two_maxima_is_found(weight):
    """Half of the rows want a low T, half a high one; the weight decides which maximum wins."""
    one, other = pair(0, 4.0, 0.0, 0.1), pair(1, 30.0, 0.9, 0.3)
    student, teacher = (torch.cat([weight * a, b]) for a, b in zip(one, other, strict=True))
    expected, loss = best_of_grid(student, teacher, 1, 21)
    assert (expected > 5) == (weight == 1.0)
    assert regret(student, teacher, ExactTemperature()(student, teacher, 0.0), loss) < 1e-6


def test_the_derivatives_are_those_of_autograd():
    student, teacher = pair(3, dtype=torch.float64)
    u = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(kd_loss(student, teacher, u.exp()), u, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, u)
    found = derivatives(student, teacher, u.detach())
    torch.testing.assert_close(torch.stack(found), torch.stack([slope, curvature]).detach())


def test_the_rate_is_the_share_of_the_way_in_log_t():
    student, teacher = pair(0)
    target = ExactTemperature()(student, teacher, 0.0).item()
    policy = ExactTemperature(rate=0.25, start=16.0)
    path = [policy(student, teacher, 0.0).item() for _ in range(3)]
    expected = [target * (16.0 / target) ** (0.75**k) for k in (1, 2, 3)]
    assert path == pytest.approx(expected, rel=1e-4)
    assert policy.eval()(student, teacher, 0.0) == policy(
        student, teacher, 0.0
    )  # moves in training
