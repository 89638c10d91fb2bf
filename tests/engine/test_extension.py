"""A loss, policy, schedule, transform, network or data set from outside, by one decorator."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
LOSSES = '''
import torch
from torch.nn import functional as F
from ctkd.registry import OBJECTIVES

@OBJECTIVES.register
class MeanSquares:
    """CE, and the squares of the logits' differences, which feel no temperature."""

    needs_teacher = True

    def __init__(self, weight: float = 0.1) -> None:
        self.weight = weight

    def __call__(self, student, teacher, targets, temperature, raw=None):
        squares = (student - teacher).square().mean(1) + 0 * temperature.reshape(-1)
        return {"ce": F.cross_entropy(student, targets, reduction="none"), "mse": squares}

    def weights(self, position):
        return {"ce": 1.0, "mse": self.weight}
'''
POLICIES = '''
import torch
from torch import nn
from ctkd.registry import TEMPERATURES

@TEMPERATURES.register
class ClassTemperature(nn.Module):
    """One learned T for each class that the teacher names."""

    learned = True
    bounds = (1.0, 11.0)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(num_classes))

    def forward(self, student, teacher, progress):
        return 1 + 10 * self.raw[teacher.argmax(1)].sigmoid()[:, None]
'''
SCHEDULES = """
from ctkd.registry import SCHEDULES

@SCHEDULES.register("StepLambda")
def step_lambda(at: float = 2.0):
    return lambda position: 0.0 if position < at else 1.0
"""
TRANSFORMS = '''
from ctkd.registry import TRANSFORMS

@TRANSFORMS.register
class Centered:
    """Takes the mean out of each row."""

    def __call__(self, student, teacher):
        return tuple(z - z.mean(1, keepdim=True) for z in (student, teacher))
'''
MODELS = """
from torch import nn
from ctkd.registry import MODELS

@MODELS.register
def two_layers(num_classes: int, hidden: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(48, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
    )
"""
DATA = '''
import torch
from ctkd.data.augment import CropFlip
from ctkd.data.in_memory import ResidentDataset, Split, Splits
from ctkd.registry import DATASETS
from ctkd.seeds import generator

@DATASETS.register("stripes", runtime=("path",))
class Stripes(ResidentDataset):
    """Pictures with one bright row, whose number is the class."""

    num_classes, shape = 4, (3, 4, 4)
    mean, std = (0.5,) * 3, (0.25,) * 3

    def __init__(self, count: int = 200, path: str = "") -> None:
        self.count = count
        self.views = CropFlip(0, flip=True)

    def load(self):
        def split(name, count):
            drawn = generator("stripes", name)
            images = torch.randint(0, 120, (count, 4, 4, 3), generator=drawn, dtype=torch.uint8)
            targets = torch.randint(0, 4, (count,), generator=drawn)
            images[torch.arange(count), targets] += 120
            return Split(images, targets)

        return Splits(split("train", self.count), split("test", 80))
'''
FILES = {
    "losses": LOSSES,
    "policies": POLICIES,
    "schedules": SCHEDULES,
    "transforms": TRANSFORMS,
    "models": MODELS,
    "data": DATA,
}
RUN = """
import my_pkg.losses
import my_pkg.policies
import my_pkg.schedules
import my_pkg.transforms
import my_pkg.models
import my_pkg.data
include 'gin/digits/ctkd.gin'

student = @two_layers
teacher = @two_layers
epochs = 3
Recipe.dataset = @stripes
stripes.count = 128
Method.objective = @MeanSquares
MeanSquares.weight = 0.25
Method.policy = @ClassTemperature
Method.schedule = @StepLambda
StepLambda.at = 1.0
Method.transform = @Centered
Teacher.run = 'teacher_of_mine.gin'
Teacher.min_accuracy = 20.0
Runtime.tensorboard = False
Runtime.figures = False
"""
TEACHER = """
import my_pkg.models
import my_pkg.data
include 'gin/digits/teacher.gin'

student = @two_layers
epochs = 3
Recipe.dataset = @stripes
Runtime.tensorboard = False
Runtime.figures = False
Teacher.run = None
"""


@pytest.fixture
def outside(tmp_path, environment):
    """A package of a user's own next to the runs, on Python's path; how to call the command."""
    (tmp_path / "my_pkg").mkdir()
    for name, text in FILES.items():
        (tmp_path / "my_pkg" / f"{name}.py").write_text(text)
    (tmp_path / "mine.gin").write_text(RUN)
    (tmp_path / "teacher_of_mine.gin").write_text(TEACHER)
    environment["PYTHONPATH"] = f"{environment['PYTHONPATH']}:{tmp_path}"


@pytest.mark.slow(traced=True)
def test_every_kind_of_part_can_come_from_outside(
    outside, cli, command, folder, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    result = cli("--gin_file=mine.gin", "--workdir=runs/mine")
    assert result.status == 0, result.err
    run = folder(tmp_path / "runs/mine")
    method, recipe = run.settings["method"], run.settings["recipe"]
    assert method["MeanSquares.weight"] == 0.25
    assert method["StepLambda.at"] == 1.0
    assert recipe["Recipe.student"] == "@two_layers"
    assert recipe["stripes.count"] == 128
    assert "stripes.path" in run.settings["runtime"]
    assert {"train_ce", "train_mse"} <= run.metrics[0].keys()
    assert run.column("lambda") == [0.0, 1.0, 1.0]
    assert run.summary["dataset"] == "stripes"
    assert run.landscape[0]["bounds"] == [1.0, 11.0]
    assert run.tensors()["3.weight"].shape == (4, 16)

    # The saved configuration stands by itself, imports included.
    judged = command("--mode=evaluate", "--workdir=runs/mine")
    assert judged.status == 0, judged.err
    assert f"test_top1 {run.summary['last_top1']:.2f} %" in judged.out


def test_mistakes_in_parts_from_outside_are_reported_as_in_those_from_inside(
    outside, command, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    for binding, expected in [
        ("MeanSquares.wieght = 0.1", "did you mean weight?"),  # codespell:ignore
        ("MeanSquares.weight = 'much'", "MeanSquares.weight = 'much': expected a number"),
        ("Method.objective = @MeanSquare", "did you mean MeanSquares"),
    ]:
        result = command("--gin_file=mine.gin", "--dry_run", f"--gin_param={binding}")
        assert result.status == 2
        assert expected in result.err
