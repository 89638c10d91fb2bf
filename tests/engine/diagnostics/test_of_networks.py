"""`ctkd.landscape`: L(T), its slope and T* of any two networks, against a plain float64 loop."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ctkd
from ctkd.commands.landscape_of_run import main
from ctkd.engine.diagnostics.landscape import Probe
from ctkd.engine.job import Job
from ctkd.errors import ConfigError, DataError


@pytest.fixture
def given():
    """Two networks with batch normalization, and two batches."""
    torch.manual_seed(0)
    student, teacher = (
        nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
        for _ in range(2)
    )
    for parameter in teacher.parameters():
        parameter.data *= 2.0
    batches = [(torch.randn(32, 8), torch.randint(10, (32,))) for _ in range(2)]
    return student, teacher.eval(), batches


def plain_loss(student, teacher, batches, temperature):
    """T² · KL, the mean over the rows; the student with batch statistics."""
    t = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    losses = []
    with torch.no_grad():
        pairs = [(student(x).double(), teacher(x).double()) for x, _ in batches]
    for ours, theirs in pairs:
        p, q = (theirs / t).softmax(1), (ours / t).log_softmax(1)
        losses.append(F.kl_div(q, p, reduction="none").sum(1))
    loss = t**2 * torch.cat(losses).mean()
    (slope,) = torch.autograd.grad(loss, t)
    return loss.item(), slope.item()


def test_values_slopes_and_the_maximum(given):
    student, teacher, batches = given
    found = ctkd.landscape(student, teacher, batches, low=0.5, high=30.0, points=9)
    assert found.samples == 64
    for t, loss, slope in zip(found.temperatures, found.losses, found.slopes, strict=True):
        expected, derivative = plain_loss(student.train(), teacher, batches, t)
        assert loss == pytest.approx(expected, rel=1e-6)
        assert slope == pytest.approx(derivative, rel=1e-4, abs=1e-5)
    assert found.loss_star >= max(found.losses)
    _, at_peak = plain_loss(student, teacher, batches, found.t_star)
    assert abs(at_peak) < 1e-3


def test_networks_stay_as_they_were(given):
    student, teacher, batches = given
    student.eval()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    ctkd.landscape(student, teacher, batches, points=5)
    assert not student.training
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_each_part_of_a_network_keeps_its_mode_also_after_an_error(given):
    student, teacher, batches = given
    for network in (student, teacher):
        network.train()
        network[1].eval()  # a frozen batch normalization
    ctkd.landscape(student, teacher, batches, points=5)
    with pytest.raises(DataError):
        ctkd.landscape(student, teacher, [])
    for network in (student, teacher):
        assert [part.training for part in network] == [True, False, True, True]


def test_at_the_end_of_the_grid_there_is_a_bound_and_no_maximum(given):
    student, teacher, batches = given
    found = ctkd.landscape(student, teacher, batches, low=0.01, high=0.1, points=5)
    assert found.t_star == pytest.approx(0.1)
    assert "T* ≥ 0.1" in found.figure()._suptitle.get_text()
    assert found._repr_png_().startswith(b"\x89PNG")  # for notebooks


def test_mistakes(given):
    student, teacher, batches = given
    with pytest.raises(ConfigError, match="a temperature between 0 and high"):
        ctkd.landscape(student, teacher, batches, low=3.0, high=2.0)
    with pytest.raises(DataError, match="yields no batch"):
        ctkd.landscape(student, teacher, [])
    with pytest.raises(ConfigError, match=r"landscape\.samples = 0: expected 1 or more"):
        ctkd.landscape(student, teacher, batches, samples=0)
    with pytest.raises(ConfigError, match=r"landscape\.high = inf: expected a finite"):
        ctkd.landscape(student, teacher, batches, high=float("inf"))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((torch.zeros(2, 8),) * 3, "yields a tuple of 3: expected pairs of tensors"),
        ({"inputs": torch.zeros(2, 8)}, "yields a dict: expected pairs of tensors"),
        ((torch.full((2, 8), torch.nan), torch.zeros(2)), "student's logits are not all finite"),
    ],
)
def test_batches_without_a_landscape(given, batch, message):
    with pytest.raises(DataError, match=message):
        ctkd.landscape(*given[:2], [batch])


def test_a_network_must_return_logits(given):
    student, teacher, batches = given
    teacher.register_forward_hook(lambda module, inputs, output: {"logits": output})
    with pytest.raises(DataError, match="the teacher returns a dict: expected logits"):
        ctkd.landscape(student, teacher, batches)


def test_the_command_draws_the_landscape_of_checkpoints(
    teacher_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    given = ["--gin_file=gin/digits/kd.gin", f"--teacher_weights={teacher_file}"]
    given += ["--student=digits_teacher", f"--checkpoint={teacher_file}"]
    assert main([*given, "--samples=5000"]) == 0
    assert re.search(r"T\* .* on 1437 samples\n", capsys.readouterr().out)  # all that there are
    written = {f"landscape_now.{kind}" for kind in ("png", "pdf", "json")}
    assert {path.name for path in tmp_path.iterdir()} >= written  # not in the folder of a run
    assert not any(tmp_path.glob("runs/*/*/kd*/landscape_now*"))
    found = json.loads((tmp_path / "landscape_now.json").read_text())
    grid, losses = np.array(found["temperatures"]), found["losses"]
    slopes = np.gradient(losses, np.log(grid), edge_order=2) / grid  # second order at the ends too
    assert found["slopes"] == pytest.approx(slopes, rel=0.03, abs=1e-3 * max(abs(slopes)))


def test_without_a_checkpoint_the_student_has_its_first_weights(
    teacher_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(Probe, "measure", lambda self, student, distiller: seen.append(student))
    given = ["--gin_file=gin/digits/kd.gin", f"--teacher_weights={teacher_file}", "--seed=3"]
    with pytest.raises(TypeError):  # nothing is measured
        main(given)
    assert "student: first weights, seed 3\n" in capsys.readouterr().out
    config = Job(["gin/digits/kd.gin"], ["seed = 3"]).build()
    state = config.student.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in seen[0].state_dict().items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "give --workdir of a run"),
        (["--gin_file=gin/digits/kd.gin", "--samples=1"], "landscape.samples = 1: expected 2"),
        (["--workdir=nowhere"], "--workdir nowhere is not the work directory of a run"),
    ],
)
def test_mistakes_of_the_command(given, message, capsys):
    assert main(given) == 2
    assert message in capsys.readouterr().err
