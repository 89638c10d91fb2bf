"""Small runs on the digits, in this process, and what they leave behind."""

import json

import pytest
import torch


class Folder:
    """A work directory, read."""

    def __init__(self, path, result=None):
        self.path, self.result = path, result

    def rows(self, name):
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]

    @property
    def metrics(self):
        return self.rows("metrics.jsonl")

    @property
    def landscape(self):
        return self.rows("landscape.jsonl")

    @property
    def summary(self):
        return json.loads((self.path / "summary.json").read_text())

    @property
    def settings(self):
        return json.loads((self.path / "settings.json").read_text())

    @property
    def checkpoints(self):
        return sorted((self.path / "checkpoints").glob("*.pt"))

    def tensors(self, name="student_last.pt"):
        return torch.load(self.path / name, weights_only=True)

    def column(self, name):
        return [row[name] for row in self.metrics]


@pytest.fixture
def same():
    """Whether two sets of named tensors agree bit by bit."""

    def compare(one, other):
        return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)

    return compare


@pytest.fixture
def arguments(teacher_file):
    """The command line of a small digits run: 128 images, 2 steps an epoch, 3 epochs."""

    def make(method, *bindings, workdir=None, teacher=True):
        small = ["epochs = 3", "digits.train_images = 128", "Runtime.tensorboard = False"]
        weights = [f"teacher_weights = {str(teacher_file)!r}"] if teacher else []
        given = [f"--gin_param={binding}" for binding in (*small, *weights, *bindings)]
        folder = [] if workdir is None else [f"--workdir={workdir}"]
        return [f"--gin_file=gin/digits/{method}.gin", *given, *folder]

    return make


@pytest.fixture
def train(command, arguments, tmp_path, monkeypatch):
    """Trains such a run in this process, without figures: train("ctkd", "epochs = 2") -> Folder."""
    monkeypatch.setattr("ctkd.results.figures.save_figures", lambda record, folder: [])

    def call(method, *bindings, workdir="run", status=0, flags=()):
        result = command(*arguments(method, *bindings, workdir=workdir), *flags)
        assert result.status == status, result.err
        return Folder(tmp_path / workdir, result)

    return call


@pytest.fixture
def folder():
    """Reads a work directory."""
    return Folder
