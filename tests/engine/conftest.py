"""Small runs on the digits, in this process, and what they leave behind."""

import contextlib
import json
import os
import signal

import pytest
import torch

from ctkd.engine.output.workdir import Workdir


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
        small += ["Instrument.points = 9", "Runtime.figures = False"]
        weights = [f"teacher_weights = {str(teacher_file)!r}"] if teacher else []
        given = [f"--gin_param={binding}" for binding in (*small, *weights, *bindings)]
        folder = [] if workdir is None else [f"--workdir={workdir}"]
        return [f"--gin_file=gin/digits/{method}.gin", *given, *folder]

    return make


@pytest.fixture
def train(command, arguments, tmp_path):
    """Trains such a run in this process, without figures: train("ctkd", "epochs = 2") -> Folder."""

    def call(method, *bindings, workdir="run", status=0, flags=()):
        result = command(*arguments(method, *bindings, workdir=workdir), *flags)
        assert result.status == status, result.err
        return Folder(tmp_path / workdir, result)

    return call


@pytest.fixture
def interrupted_at(monkeypatch):
    """A context in which a run is interrupted after its n-th step."""

    @contextlib.contextmanager
    def within(step):
        from ctkd.engine.train import Trainer

        real = Trainer.train_step

        def stop(self, batch):
            real(self, batch)
            if self.progress.steps == step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Trainer, "train_step", stop)
            yield

    return within


@pytest.fixture
def folder():
    """Reads a work directory."""
    return Folder


class Holder:
    """A forked process that owns a folder until it is killed."""

    def __init__(self, path, worker=False):
        """`worker`: whether it forks a process in turn, which outlives it."""
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                with Workdir(path).owned():
                    forked = os.fork() if worker else -1
                    if forked:
                        os.write(writer, str(forked).encode())
                    signal.pause()
            finally:
                os._exit(1)
        os.close(writer)
        self.worker = int(os.read(reader, 20))
        os.close(reader)

    def end(self, number=signal.SIGKILL):
        if self.pid:
            os.kill(self.pid, number)
            os.waitpid(self.pid, 0)
            self.pid = None


@pytest.fixture
def holding():
    """Starts processes that own a folder: holding(path) -> Holder."""
    started = []

    def start(path, **options):
        started.append(Holder(path, **options))
        return started[-1]

    yield start
    for process in started:
        process.end()
