"""The command that fills a teacher's cache ahead of the runs."""

import json

import numpy as np
import pytest

from ctkd.commands import fill_cache
from ctkd.errors import Interrupted, NonFiniteError


@pytest.fixture
def fill(tmp_path, teacher_file, monkeypatch, capsys):
    """Runs the command on 40 digits of nine views; returns status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*more, cache="cache", method="kd", weights=teacher_file):
        given = [
            "digits.train_images = 40",
            "batch_size = 32",
            f"teacher_weights = {str(weights)!r}",
        ]
        given += [f"teacher_cache = {str(tmp_path / cache)!r}"] if cache else []
        capsys.readouterr()
        words = [f"--gin_file=gin/digits/{method}.gin", *(f"--gin_param={b}" for b in given)]
        try:
            status = fill_cache.main([*words, *more])
        except SystemExit as ended:  # argparse
            status = ended.code
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def losses(command, tmp_path, teacher_file):
    """Trains on those digits with a setting of the cache; returns the losses and the messages."""

    def call(cache, workdir):
        given = ["digits.train_images = 40", "batch_size = 32", "epochs = 2"]
        given += [
            "Runtime.tensorboard = False",
            "Runtime.figures = False",
            f"teacher_weights = {str(teacher_file)!r}",
        ]
        given += [f"teacher_cache = {cache!r}"]
        result = command(
            "--gin_file=gin/digits/ctkd.gin",
            *(f"--gin_param={binding}" for binding in given),
            f"--workdir={workdir}",
        )
        assert result.status == 0, result.err
        lines = (tmp_path / workdir / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["train_loss"] for line in lines], result.out

    return call


def test_it_fills_what_is_missing_and_a_run_finds_it(fill, tmp_path, losses):
    status, out, err = fill("--rows=100")
    assert status == 0, err
    assert "of 360 rows" in out
    (home,) = (tmp_path / "cache").iterdir()
    sums = np.fromfile(home / "sums", np.uint64)
    assert 100 <= np.count_nonzero(sums) < 140  # whole batches
    before = (home / "rows").read_bytes()
    status, out, _ = fill()
    assert status == 0
    assert "holds 100.0% of 360 rows" in out
    first = np.frombuffer(before, np.float32)[:1000]
    np.testing.assert_array_equal(np.fromfile(home / "rows", np.float32)[:1000], first)
    assert "holds all 360 rows" in fill()[1]
    cached, messages = losses(str(tmp_path / "cache"), "run")
    assert "(100.0% of 360 are there)" in messages
    assert losses(None, "off")[0] == cached
    assert json.loads((home / "key.json").read_text())["batch_size"] == 32


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(Interrupted("at step 3"), 130, "goes on from there"), (NonFiniteError("kd"), 2, "kd")],
)
def test_what_ends_its_teachers_training_ends_it(monkeypatch, capsys, error, status, message):
    def fail(options):
        raise error

    monkeypatch.setattr(fill_cache, "_fill", fail)
    assert fill_cache.main(["--gin_file=gin/digits/kd.gin"]) == status
    assert message in capsys.readouterr().err


def test_mistakes_are_reported(fill, tmp_path):
    status, _, err = fill("--rows=0")
    assert (status, "0 is not 1 or more" in err) == (2, True)
    status, _, err = fill(cache=None)
    assert status == 2
    assert "these settings keep no cache" in err
    status, _, err = fill(method="vanilla")
    assert (status, "has no teacher" in err) == (2, True)
    status, _, err = fill(weights=tmp_path / "absent.pt")
    assert status == 2
    assert err.startswith("ctkd fill-cache: the file of weights")
    (tmp_path / "file").write_text("")
    status, _, err = fill(cache="file")
    assert status == 2
    assert "no cache to fill" in err
