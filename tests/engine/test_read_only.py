"""Files of another user, or on a read-only disk: a finished run is read, all else is explained."""

import os
import pathlib

import pytest

from ctkd.engine.output.workdir import Workdir
from ctkd.errors import WorkdirError
from ctkd.files import owner_of
from ctkd.locks import is_locked, locked

SMALL = [
    "epochs = 1",
    "steps_per_epoch = 1",
    "Runtime.tensorboard = False",
    "Runtime.figures = False",
    "Teacher.run = 'teacher.gin'",
    "Teacher.min_accuracy = None",
]
SHARED = ["Runtime.teachers_dir = 'shared'"]


@pytest.fixture
def digits(command):
    """Trains one step on the digits, with a teacher of the run's own of one epoch; the Result."""
    pathlib.Path("teacher.gin").write_text("include 'gin/digits/teacher.gin'\nepochs = 1\n")

    def call(*bindings, workdir, flags=()):
        given = [f"--gin_param={b}" for b in (*SMALL, *bindings)]
        return command("--gin_file=gin/digits/kd.gin", *given, f"--workdir={workdir}", *flags)

    return call


def test_a_finished_teacher_of_another_user_is_read(digits, read_only):
    assert digits(*SHARED, workdir="mine").status == 0
    with read_only(pathlib.Path("shared").resolve()):
        result = digits(*SHARED, workdir="yours")
    assert result.status == 0, result.err
    assert "training the teacher" not in result.out
    assert Workdir(pathlib.Path("yours")).read_summary()["finished"]


def test_an_unfinished_teacher_of_another_user_is_refused_with_a_way_out(digits, read_only):
    digits(*SHARED, workdir="mine")
    (home,) = pathlib.Path("shared").iterdir()
    (home / "summary.json").unlink()
    with read_only(home.resolve()):
        result = digits(*SHARED, workdir="yours")
    assert result.status == 2
    expected = f"cannot use the work directory {home}: Permission denied; give another "
    assert f"{expected}Runtime.teachers_dir" in result.err


def test_a_finished_teacher_without_weights_is_refused_too(digits, read_only):
    digits(*SHARED, workdir="mine")
    (home,) = pathlib.Path("shared").iterdir()
    (home / "student_last.pt").unlink()
    with read_only(home.resolve()):
        result = digits(*SHARED, workdir="yours")
    assert result.status == 2
    assert "lacks student_last.pt, and is not writable: give another Runtime.teac" in result.err


def test_what_cannot_be_read_is_named_with_a_way_out(digits, read_only):
    digits(*SHARED, workdir="mine")
    (home,) = pathlib.Path("shared").iterdir()
    with read_only(home.resolve(), hidden=True):
        result = digits(*SHARED, workdir="yours")
    assert result.status == 2
    assert "summary.json cannot be read: Permission denied; give another Runtime" in result.err


def test_a_finished_run_of_another_user_is_shown_and_evaluated(digits, command, read_only):
    digits(workdir="run")
    files = sorted(pathlib.Path("run").rglob("*"))
    with read_only(pathlib.Path("run").resolve()):
        again = digits(workdir="run")
        evaluated = command("--mode=evaluate", "--workdir=run")
    assert (again.status, evaluated.status) == (0, 0), (again.err, evaluated.err)
    assert "run holds this run, finished; nothing is left to train" in again.out
    assert "test_top1 " in evaluated.out
    assert sorted(pathlib.Path("run").rglob("*")) == files


@pytest.mark.parametrize("flags", [(), ("--fresh",)])
def test_a_run_of_another_user_is_neither_continued_nor_moved(digits, read_only, flags):
    digits(workdir="run")
    if not flags:
        pathlib.Path("run/summary.json").unlink()
    with read_only(pathlib.Path("run").resolve()):
        result = digits(workdir="run", flags=flags)
    assert result.status == 2
    assert "give another --workdir" in result.err
    assert pathlib.Path("run/settings.json").is_file()
    assert not pathlib.Path("run.old-1").exists()


def test_a_teacher_cache_of_another_user_is_read(train, read_only, tmp_path):
    keep = f"Runtime.teacher_cache = {str(tmp_path / 'cache')!r}"
    first = train("kd", keep, workdir="first")
    with read_only(tmp_path / "cache"):
        second = train("kd", keep, workdir="second")
        other = train("kd", keep, "Runtime.threads = 2", workdir="other")
    assert "is read-only: its rows are used, and no more are kept" in second.result.out
    assert ", 0 computed" in second.result.out
    assert second.metrics[-1]["train_kd"] == first.metrics[-1]["train_kd"]
    assert "warning: no teacher cache: " in other.result.err
    assert "Runtime.teacher_cache names another folder for them" in other.result.err


def test_a_lock_of_another_user_can_be_looked_at(tmp_path, python, read_only):
    path = tmp_path / "folder" / "a.lock"
    with locked(path):
        look = python(
            "import os, sys\nfrom pathlib import Path\nfrom ctkd.locks import is_locked\n"
            f"print(is_locked(Path({str(path)!r})))"
        )
        assert look.out == "True\n", look.err
    with read_only(path.parent):
        assert not is_locked(path)
    with (
        read_only(path.parent, hidden=True),
        pytest.raises(WorkdirError, match="cannot be read: Permission denied"),
    ):
        is_locked(path)


def test_the_owner_is_named_where_it_is_another_user(tmp_path, monkeypatch):
    assert owner_of(tmp_path / "not" / "there") == ""
    name = tmp_path.owner()
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert owner_of(tmp_path / "not" / "there") == f" ({tmp_path} belongs to {name})"
