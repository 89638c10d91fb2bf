"""A work directory: whose it is, who holds it, and what --fresh does to it."""

import copy
import functools
import json
import os
import pathlib
import signal
import time

import hypothesis
import pytest
from hypothesis import strategies as st

from ctkd.engine.config.identity import differences, identity_of
from ctkd.engine.output.workdir import Workdir
from ctkd.errors import WorkdirError

SETTINGS = {
    "method": {"Method.objective": "@KD", "KD.kd_weight": 0.9},
    "recipe": {"Recipe.epochs": 3, "SGD.milestones": [150, 180]},
    "seed": {"Seed.seed": 0},
    "runtime": {"Runtime.name": "kd", "Runtime.workers": 0, "Teacher.weights": None},
}


def settings(**changes):
    """`SETTINGS` with values replaced."""
    changed = copy.deepcopy(SETTINGS)
    for name, value in changes.items():
        part = next((p for p in changed.values() if name in p), changed["recipe"])
        part[name] = value
    return changed


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path / "run")


@pytest.fixture
def holder(holding, workdir):
    return functools.partial(holding, workdir.path)


def claim(workdir, **changes):
    with workdir.owned():
        workdir.claim(settings(**changes), "text")


def refusal(workdir, **changes):
    with pytest.raises(WorkdirError) as caught:
        claim(workdir, **changes)
    return str(caught.value)


def test_a_new_folder_is_made_and_says_what_it_is(workdir):
    claim(workdir)
    assert workdir.read_settings() == {"name": "kd", **SETTINGS}
    assert (workdir.path / "config.gin").read_text() == "text"
    assert workdir.read_summary() is None


@pytest.mark.parametrize("changes", [{}, {"Runtime.workers": 8}, {"Teacher.weights": "/moved.pt"}])
def test_the_same_run_is_resumed_with_its_data_in_another_folder(workdir, changes):
    claim(workdir)
    claim(workdir, **changes)
    assert workdir.read_settings()["runtime"] == settings(**changes)["runtime"]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"KD.kd_weight": 0.5}, ["KD.kd_weight = 0.9 there, 0.5 here"]),
        ({"Seed.seed": 1}, ["Seed.seed = 0 there, 1 here"]),
        ({"Recipe.epochs": 4}, ["Recipe.epochs = 3 there, 4 here"]),
        ({"SGD.lr": 0.1}, ["SGD.lr = 'not set' there, 0.1 here"]),
        (
            {"KD.kd_weight": 0.5, "Seed.seed": 2},
            ["KD.kd_weight = 0.9 there, 0.5 here", "Seed.seed = 0 there, 2 here"],
        ),
    ],
)
def test_another_runs_folder_is_refused_with_the_differing_lines(workdir, changes, lines):
    claim(workdir)
    kept = (workdir.path / "settings.json").read_bytes()
    message = refusal(workdir, **changes)
    assert message.splitlines()[1:-1] == [f"  {line}" for line in lines]
    assert all(word in message for word in ("belongs to another run", "--workdir", "--fresh"))
    assert (workdir.path / "settings.json").read_bytes() == kept


def test_a_folder_of_something_else_is_refused_and_left_alone(workdir):
    workdir.path.mkdir()
    (workdir.path / "thesis.tex").write_text("all of it")
    (workdir.path / ".draft.17.3.tmp").write_text("a draft")
    assert "is not a work directory of ctkd: it contains thesis.tex" in refusal(workdir)
    assert sorted(p.name for p in workdir.path.iterdir()) == [".draft.17.3.tmp", "thesis.tex"]
    with pytest.raises(WorkdirError, match="is not a work directory of ctkd"):
        workdir.move_aside()
    assert (workdir.path / "thesis.tex").read_text() == "all of it"


@pytest.mark.parametrize("content", ['{"editor.fontSize": 12}', "[]", '{"method": 1}'])
def test_another_programs_settings_are_not_taken_for_ours(workdir, content):
    workdir.path.mkdir()
    (workdir.path / "settings.json").write_text(content)
    message = refusal(workdir)
    assert "settings.json" in message
    assert (workdir.path / "settings.json").read_text() == content


def test_damaged_settings_are_named(workdir):
    claim(workdir)
    (workdir.path / "settings.json").write_text('{"method": ')
    assert "settings.json cannot be read" in refusal(workdir)
    assert workdir.move_aside() == workdir.path.with_name("run.old-1")


def test_what_a_killed_process_left_half_written_is_cleared_away(workdir):
    claim(workdir)
    (workdir.path / "checkpoints").mkdir()
    half = [".summary.json.123.4.tmp", "checkpoints/.step-1.pt.123.4.tmp", ".curves.png.9.8.tmp"]
    for name in half:
        (workdir.path / name).write_text("half")
    (workdir.path / ".keep").write_text("whole")
    claim(workdir)
    assert not any((workdir.path / name).exists() for name in half)
    assert (workdir.path / ".keep").exists()


def test_killed_before_anything_was_written_the_folder_is_still_new(workdir):
    workdir.path.mkdir()
    (workdir.path / ".lock").write_text("123")
    (workdir.path / ".settings.json.123.4.tmp").write_text("{")
    claim(workdir)
    assert workdir.read_settings()["name"] == "kd"


@pytest.mark.parametrize("below", ["file", "file/run", "file/a/b"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(WorkdirError, match=f"cannot use the work directory .*{below}: "),
        Workdir(tmp_path / below).owned(),
    ):
        pass


def test_two_processes_cannot_own_one_folder(workdir, holder):
    other = holder()
    with pytest.raises(WorkdirError) as caught, workdir.owned():
        pass
    assert str(caught.value) == (
        f"{workdir.path} is in use by process {other.pid}: wait for it, or give another --workdir"
    )
    with pytest.raises(WorkdirError, match="in use by process"):
        workdir.move_aside()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_goes_with_its_process_however_it_ends(workdir, holder, number):
    holder().end(number)
    with workdir.owned():
        assert (workdir.path / ".lock").read_text() == str(os.getpid())


def test_the_lock_is_released_although_a_forked_worker_lives_on(workdir, holder):
    other = holder(worker=True)
    other.end()
    try:
        os.kill(other.worker, 0)  # it does live
        with workdir.owned():
            pass
    finally:
        os.kill(other.worker, signal.SIGKILL)


def test_an_owner_can_be_waited_for_and_is_reported_once(workdir, holder, monkeypatch):
    other = holder()
    pid, messages, naps = other.pid, [], []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            other.end()

    monkeypatch.setattr(time, "sleep", sleep)
    with workdir.owned(wait=messages.append):
        pass
    assert messages == [f"{workdir.path} is in use by process {pid}: waiting"]


def test_fresh_moves_aside_and_never_deletes(workdir):
    assert workdir.move_aside() is None
    for number in (1, 2, 3):
        claim(workdir, **{"Seed.seed": number})
        (workdir.path / "student_last.pt").write_text(f"weights {number}")
        assert workdir.move_aside() == workdir.path.with_name(f"run.old-{number}")
        assert not workdir.path.exists()
    for number in (1, 2, 3):
        old = workdir.path.with_name(f"run.old-{number}")
        assert (old / "student_last.pt").read_text() == f"weights {number}"
        assert json.loads((old / "settings.json").read_text())["seed"]["Seed.seed"] == number


@pytest.mark.parametrize(("inside", "given"), [(".", "."), (".", "../run"), ("checkpoints", "..")])
def test_a_folder_cannot_be_moved_from_inside_it(workdir, monkeypatch, inside, given):
    claim(workdir)
    (workdir.path / "checkpoints").mkdir()
    monkeypatch.chdir(workdir.path / inside)
    with pytest.raises(WorkdirError, match="aside from inside it"):
        Workdir(pathlib.Path(given)).move_aside()
    assert workdir.path.exists()


def test_a_rename_that_fails_is_reported(workdir, monkeypatch):
    claim(workdir)

    def refuse(self, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(workdir.path), "rename", refuse)
    with pytest.raises(WorkdirError, match="cannot move .* aside: Permission denied"):
        workdir.move_aside()


def test_a_run_belongs_to_the_teacher_it_was_begun_with(workdir):
    with workdir.owned():
        ours = settings()
        workdir.claim(ours, "text")
        workdir.claim_sources(None, "aaaa")
    (workdir.path / "checkpoints").mkdir()
    (workdir.path / "checkpoints/step.pt").touch()
    assert workdir.read_settings()["recipe"]["Teacher.fingerprint"] == "aaaa"
    with workdir.owned():
        again = settings()
        workdir.claim(again, "text")
        workdir.claim_sources(None, "aaaa")
        with pytest.raises(WorkdirError) as caught:
            workdir.claim_sources(None, "bbbb")
    assert "aaaa there, bbbb here" in str(caught.value)


def test_before_anything_was_trained_another_teacher_may_be_given(workdir):
    """A first file that was wrong, and refused, must not bind the folder to it."""
    for fingerprint in ("aaaa", "bbbb"):
        with workdir.owned():
            ours = settings()
            workdir.claim(ours, "text")
            workdir.claim_sources(None, fingerprint)
    assert workdir.read_settings()["recipe"]["Teacher.fingerprint"] == "bbbb"


def test_the_identity_is_of_method_recipe_and_seed_alone():
    mine = identity_of(settings())
    same = {"Runtime.workers": 9, "Teacher.fingerprint": "aaaa", "Teacher.weights": "x"}
    assert all(identity_of(settings(**{k: v})) == mine for k, v in same.items())
    other = {"KD.kd_weight": 0.8, "Recipe.epochs": 4, "Seed.seed": 1, "SGD.lr": 0.1}
    hashes = {identity_of(settings(**{name: value})) for name, value in other.items()}
    assert len(hashes | {mine}) == 5


@hypothesis.given(*[st.dictionaries(st.sampled_from(["a.x", "b.y"]), st.integers(0, 2))] * 2)
def test_differences_are_empty_just_where_the_identities_agree(one, other):
    here, there = settings(), settings()
    here["recipe"], there["recipe"] = one, other
    assert (differences(here, there) == []) == (identity_of(here) == identity_of(there))
    assert len(differences(here, there)) == sum(
        one.get(name, "-") != other.get(name, "-") for name in one.keys() | other.keys()
    )


def test_rows_are_one_object_a_line(workdir):
    workdir.path.mkdir()
    workdir.write_rows("metrics.jsonl", [{"epoch": 1}, {"epoch": 2, "λ": None}])
    lines = (workdir.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"epoch": 1}, {"epoch": 2, "λ": None}]
