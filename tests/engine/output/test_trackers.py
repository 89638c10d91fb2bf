"""Further trackers: `metrics.csv`, and Weights & Biases with a stand-in for its package."""

import csv
import sys
import types

import pytest

from ctkd.engine.config.settings import Runtime
from ctkd.engine.output.tensorboard import tag_of
from ctkd.errors import ConfigError


class StandIn:
    """The part of wandb's interface that is used: init, log, finish."""

    def __init__(self):
        self.given, self.logged, self.finished = None, [], False

    def init(self, **given):
        self.given = given
        return self

    def log(self, numbers, step):
        self.logged.append((step, numbers))

    def finish(self):
        self.finished = True


def test_csv_and_wandb_have_the_numbers_of_each_epoch(train, monkeypatch):
    stand_in = StandIn()
    module = types.ModuleType("wandb")
    module.init, module.__spec__ = stand_in.init, types.SimpleNamespace(name="wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    run = train("ctkd", "epochs = 2", "Runtime.trackers = ['csv', 'wandb']")
    with (run.path / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["test_top1"]) for row in rows] == run.column("test_top1")
    assert [step for step, _ in stand_in.logged] == [1, 2]
    assert [n["test/top1"] for _, n in stand_in.logged] == run.column("test_top1")
    assert stand_in.finished
    assert stand_in.given["config"]["Recipe.epochs"] == 2
    assert stand_in.given["name"] == "ctkd seed 0"


def test_a_package_that_is_missing_is_an_error_before_the_run(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'ctkd\[wandb\]'"):
        Runtime(trackers=("wandb",))


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("train_loss", "train/loss"),
        ("test_top1", "test/top1"),
        ("t_star", "temperature/t_star"),
        ("probe_temperature", "temperature/probe_temperature"),
        ("lr", "run/lr"),
    ],
)
def test_numbers_are_grouped(name, tag):
    assert tag_of(name) == tag
