"""Runs with a cache are the runs without, bit by bit."""

import os
import pathlib

import pytest
import torch

from ctkd.data.in_memory import Split, Splits
from ctkd.registry import MODELS

GIN = pathlib.Path(__file__).parents[3] / "gin" / "digits"
METHODS = sorted({path.stem for path in GIN.glob("*.gin")} - {"base", "teacher", "vanilla"})


@pytest.fixture
def outcome(train, folder):
    """What a run leaves that must not depend on a cache."""

    def call(method, *bindings, workdir):
        run = train(method, *bindings, workdir=workdir)
        metrics = [
            {k: v for k, v in row.items() if k not in ("images_per_s", "data_wait")}
            for row in run.metrics
        ]
        return run, metrics, run.landscape, run.tensors()

    return call


SHORT = ["digits.train_images = 100", "batch_size = 32"]  # the last batch of an epoch has 4 images


@pytest.mark.parametrize("method", METHODS)
def test_cached_and_uncached_runs_are_bit_identical(outcome, tmp_path, method, same):
    cached = f"teacher_cache = {str(tmp_path / 'cache')!r}"
    off = outcome(method, *SHORT, "teacher_cache = None", workdir="off")
    assert not (tmp_path / "cache").exists()
    for state in ("cold", "warm"):
        run, metrics, landscape, weights = outcome(method, *SHORT, cached, workdir=state)
        assert metrics == off[1]
        assert landscape == off[2]
        assert same(weights, off[3])
        assert f"teacher rows are remembered in {tmp_path / 'cache'}" in run.result.out


def test_the_same_on_images_of_cifars_size(command, tmp_path, monkeypatch, folder, same):
    generator = torch.Generator().manual_seed(0)

    def split(count):
        images = torch.randint(256, (count, 32, 32, 3), generator=generator)
        return Split(images.to(torch.uint8), torch.arange(count) % 100)

    splits = Splits(split(150), split(100))
    monkeypatch.setattr("ctkd.data.cifar.CIFAR.load", lambda self: splits)
    torch.manual_seed(0)
    torch.save(MODELS.get("resnet14")().state_dict(), tmp_path / "teacher.pt")
    (tmp_path / "images").mkdir()

    def run(workdir, cache):
        given = ["epochs = 2", "student = @resnet8", "teacher = @resnet14", "compile = False"]
        given += [f"data_dir = {str(tmp_path / 'images')!r}", "Teacher.min_accuracy = None"]
        given += [f"teacher_weights = {str(tmp_path / 'teacher.pt')!r}", "threads = 1"]
        given += [
            f"teacher_cache = {cache!r}",
            "Runtime.tensorboard = False",
            "Runtime.figures = False",
        ]
        result = command(
            "--gin_file=gin/cifar100/ctkd_instance.gin",
            *(f"--gin_param={binding}" for binding in given),
            f"--workdir={workdir}",
        )
        assert result.status == 0, result.err
        return folder(tmp_path / workdir, result)

    off = run("off", None)
    for state in ("cold", "warm"):  # "auto": next to the images
        assert same(run(state, "auto").tensors(), off.tensors())
    (home,) = (tmp_path / "images/teacher_cache").iterdir()
    assert {path.name for path in home.iterdir()} == {"key.json", "rows", "sums"}


def test_a_run_outlives_its_cache(outcome, tmp_path, same, monkeypatch):
    """A disk that is full from the first write on, and rows that are damaged."""
    cached = f"teacher_cache = {str(tmp_path / 'cache')!r}"
    off = outcome("ctkd", *SHORT, "teacher_cache = None", workdir="off")
    with monkeypatch.context() as patched:

        def full(*_):
            raise OSError(28, "No space left on device")

        patched.setattr(os, "pwrite", full)
        run, *_, weights = outcome("ctkd", *SHORT, cached, workdir="full")
    assert same(weights, off[3])
    assert run.result.err.count("No space left on device") == 1
    outcome("ctkd", *SHORT, cached, workdir="fills")
    (rows,) = (tmp_path / "cache").glob("*/rows")
    content = bytearray(rows.read_bytes())
    content[::97] = bytes(len(content[::97]))
    rows.write_bytes(content)
    run, *_, weights = outcome("ctkd", *SHORT, cached, workdir="damaged")
    assert same(weights, off[3])
    assert run.result.err.count("damaged") == 1


def test_sixteen_bits_are_named_inexact_and_are_another_recipe(outcome, tmp_path, same):
    half = [*SHORT, "Teacher.rows = 'float16'"]
    off = outcome("kd", *half, "teacher_cache = None", workdir="off")
    assert "inexact" in off[0].result.err
    cached = f"teacher_cache = {str(tmp_path / 'cache')!r}"
    for state in ("cold", "warm"):  # a row is rounded before it was ever on the disk
        assert same(outcome("kd", *half, cached, workdir=state)[3], off[3])
    exact = outcome("kd", *SHORT, "teacher_cache = None", workdir="exact")
    assert not same(exact[3], off[3])
    assert exact[0].settings["recipe"] != off[0].settings["recipe"]
    assert exact[0].settings["runtime"]["Runtime.teacher_cache"] is None


def test_with_accumulated_gradients(outcome, tmp_path, same):
    parts = [*SHORT, "Runtime.accumulate = 3"]
    cached = f"teacher_cache = {str(tmp_path / 'cache')!r}"
    off = outcome("ctkd", *parts, "teacher_cache = None", workdir="off")
    for state in ("cold", "warm"):
        assert same(outcome("ctkd", *parts, cached, workdir=state)[3], off[3])


def test_each_part_of_a_runs_fingerprint_makes_another_cache(train, tmp_path, monkeypatch):
    """Weights, batch size, accumulation, precision, folding, compilation; not method or seed."""
    torch.manual_seed(1)
    torch.save(MODELS.get("digits_teacher")().state_dict(), tmp_path / "other.pt")
    count = iter(range(100))

    def folders(method, *bindings):
        cached = f"teacher_cache = {str(tmp_path / 'cache')!r}"
        more = ["epochs = 1", "Teacher.min_accuracy = None", *bindings]
        train(method, *SHORT, cached, *more, workdir=f"run{next(count)}")
        return {path.name for path in (tmp_path / "cache").iterdir()}

    assert len(folders("kd")) == 1
    assert len(folders("ctkd", "seed = 3", "SGD.lr = 0.2", "student = @digits_teacher")) == 1
    assert len(folders("kd", f"teacher_weights = {str(tmp_path / 'other.pt')!r}")) == 2
    assert len(folders("kd", "batch_size = 20")) == 3
    assert len(folders("kd", "Runtime.accumulate = 4")) == 4
    assert len(folders("kd", "precision = 'bfloat16'")) == 5
    with monkeypatch.context() as patched:
        unfolded = "ctkd.engine.teacher.load.fold"
        patched.setattr(unfolded, lambda network, *_: (network, None, "no"))
        assert len(folders("kd")) == 6
    with monkeypatch.context() as patched:
        patched.setattr("ctkd.engine.teacher.load.compiles_teacher", lambda run, device: True)
        patched.setattr("ctkd.engine.speed.compile.compile_frozen", lambda network: network)
        assert len(folders("kd")) == 7
    assert len(folders("dkd")) == 7
