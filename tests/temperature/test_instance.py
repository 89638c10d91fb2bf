"""The instance-wise learned temperature."""

import pytest
import torch
import torch.nn.functional as F

from ctkd.temperature import InstanceTemperature


def rows(n=6, c=5, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(n, c, generator=generator) for _ in range(2)]


def trained(**settings):
    """A policy whose last layer is not 0, so that its inputs have an effect."""
    torch.manual_seed(0)
    policy = InstanceTemperature(5, hidden=16, **settings)
    torch.nn.init.normal_(policy.output.weight, std=0.3)
    return policy.eval()


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 51_713),
        ({"hidden": 128}, 25_857),
        ({"batch_norm": True, "inputs": "probabilities"}, 52_225),  # the public re-implementation
    ],
)
def test_number_of_parameters_at_100_classes(settings, count):
    policy = InstanceTemperature(100, **settings)
    assert sum(p.numel() for p in policy.parameters()) == count


@pytest.mark.parametrize(("raw_init", "start"), [(1.0, 15.6212), (0.0, 11.0)])
def test_every_row_starts_at_the_same_temperature(raw_init, start):
    temperature = InstanceTemperature(5, raw_init=raw_init)(*rows(), 0.0)
    assert temperature.shape == (6, 1)
    assert temperature.dtype == torch.float32
    torch.testing.assert_close(temperature, torch.full((6, 1), start), rtol=0, atol=5e-5)


def test_it_is_two_1x1_convolutions_on_the_concatenated_logits():
    policy = trained()
    student, teacher = rows()
    pixels = torch.cat((student, teacher), dim=1)[:, :, None, None]
    first, second = (layer.weight[:, :, None, None] for layer in (policy.input, policy.output))
    raw = F.conv2d(F.conv2d(pixels, first, policy.input.bias).relu(), second, policy.output.bias)
    expected = 1 + 20 * raw.flatten(1).sigmoid()
    actual = policy(student, teacher, 0.0)
    torch.testing.assert_close(actual, expected)
    assert actual.std() > 0.01  # the rows do differ


def test_rows_do_not_influence_each_other():
    policy = trained()
    student, teacher = rows()
    together = policy.train()(student, teacher, 0.0)
    loop = torch.cat([policy(student[[i]], teacher[[i]], 0.0) for i in range(6)])
    torch.testing.assert_close(together, loop)


def test_batch_norm_lets_them_while_training():
    policy = trained(batch_norm=True).train()
    student, teacher = rows()
    some = policy(student[:3], teacher[:3], 0.0)
    assert not torch.allclose(policy(student, teacher, 0.0)[:3], some)


def test_sorting_by_the_teacher_makes_the_classes_interchangeable():
    student, teacher = rows()
    order = torch.tensor([3, 0, 4, 1, 2])
    by_teacher, by_class = trained(order="teacher"), trained(order="class")
    renamed = student[:, order], teacher[:, order]
    torch.testing.assert_close(by_teacher(*renamed, 0.0), by_teacher(student, teacher, 0.0))
    assert not torch.allclose(by_class(*renamed, 0.0), by_class(student, teacher, 0.0))
    # The student's columns follow the teacher's order, not one of their own.
    descending = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]])
    actual = by_teacher(student[:1], descending, 0.0)
    torch.testing.assert_close(actual, by_class(student[:1], descending, 0.0))


def test_probabilities_do_not_see_a_rows_offset():
    student, teacher = rows()
    policy, raw = trained(inputs="probabilities"), trained()
    shifted = student + 2.0, teacher - 1.0
    torch.testing.assert_close(policy(*shifted, 0.0), policy(student, teacher, 0.0))
    assert not torch.allclose(raw(*shifted, 0.0), raw(student, teacher, 0.0))
    given = trained()(student.softmax(1), teacher.softmax(1), 0.0)
    torch.testing.assert_close(policy(student, teacher, 0.0), given)


def test_batch_norm_keeps_huge_logits_finite_and_inside_the_bounds():
    policy = trained(batch_norm=True).train()
    temperature = policy(*rows(scale=1e4), 0.0)
    temperature.sum().backward()
    low, high = policy.bounds
    assert ((temperature >= low) & (temperature <= high)).all()
    assert all(p.grad.isfinite().all() for p in policy.parameters())


def test_autocast_does_not_change_the_result():
    policy, (student, teacher) = trained(), rows()
    expected = policy(student, teacher, 0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(policy(student, teacher, 0.0), expected)


def test_an_error_names_the_number_of_classes():
    student, teacher = rows()
    with pytest.raises(ValueError, match=r"teacher_logits.*\[6, 4\].*num_classes = 5"):
        InstanceTemperature(5)(student, teacher[:, :4], 0.0)
    with pytest.raises(ValueError, match=r"student_logits.*\[5\]"):
        InstanceTemperature(5)(student[0], teacher, 0.0)
