"""Further trackers: `metrics.csv`; Weights & Biases, in its offline mode and by a stand-in."""

import csv
import json
import struct
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


@pytest.mark.slow
def test_wandb_keeps_the_history_of_a_run_offline(train, monkeypatch):
    pytest.importorskip("wandb", reason="the extra 'wandb' is not installed")
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("PROJECT", "ours")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    run = train("ctkd", "trial = True", "Runtime.trackers = ['wandb']")
    (file,) = run.path.glob("wandb/offline-run-*/*.wandb")
    records = list(wandb_records(file.read_bytes()))
    (opened,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (opened.project, opened.display_name) == ("ours", "ctkd-trial seed 0")
    history = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
        for items in (record.history.item for record in records)
        if items
    ]
    assert [epoch["_step"] for epoch in history] == [1, 2]
    for tag, key in (("test/top1", "test_top1"), ("temperature/t_star", "t_star")):
        assert [epoch[tag] for epoch in history] == run.column(key)


def wandb_records(data):
    """The records of a small file: behind 7 bytes, each has a checksum, its length and its kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    start, whole = 7, 1
    while start < len(data):
        _, length, kind = struct.unpack_from("<IHB", data, start)
        assert kind == whole
        start += 7
        yield Record.FromString(data[start : start + length])
        start += length


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
