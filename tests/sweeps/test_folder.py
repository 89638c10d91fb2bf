"""Whose a sweep's directory is."""

import dataclasses

import pytest

from ctkd.errors import DataError, WorkdirError
from ctkd.locks import is_locked, locked
from ctkd.sweeps.check import check
from ctkd.sweeps.folder import SweepFolder, saved_sweep
from ctkd.sweeps.send import due
from ctkd.sweeps.study import read_study

KD, CTKD = "gin/digits/kd.gin", "gin/digits/ctkd.gin"


@pytest.fixture
def claim(tmp_path, sweep_file):
    """Claims tmp_path/sweep for a study; gives the folder."""

    def call(**settings):
        study = read_study(str(sweep_file(**settings)))
        folder = SweepFolder(tmp_path / "sweep")
        with folder.owned():
            folder.claim(saved_sweep(study, folder, check(study, supplies=False)), study.config)
        return folder

    return call


def test_what_is_claimed_is_read_again(claim):
    folder = claim(
        grid={"method": [KD, CTKD]},
        baseline={"method": "gin/digits/kd.gin"},
        resources={"cpus": 3, "other": {"exclude": "n7"}},
    )
    saved = folder.read()
    assert saved.name == "study"
    assert saved.baseline == {"method": "kd"}
    assert saved.resources.cpus == 3
    assert saved.resources.other == {"exclude": "n7"}
    assert [cell.labels for cell in saved.cells] == [{"method": "kd"}, {"method": "ctkd"}]
    assert folder.task(saved.cells[0], saved.resources).workdir.endswith("sweep/runs/kd-seed0")


def test_a_sweep_may_grow_and_need_other_resources(claim):
    claim(grid={"method": [KD]}, seeds=[0])
    folder = claim(grid={"method": [KD, CTKD]}, seeds=[0, 1], resources={"minutes": 60})
    assert len(folder.read().cells) == 4


def test_a_sweep_may_be_sent_again_from_another_place_or_for_another_machine(claim):
    """What a run needs may change after it failed for the lack of it; what it trains may not."""
    claim(grid={"method": [KD]})
    elsewhere = [
        "teacher_weights = '/w/teacher.pt'",
        "device = 'cpu'",
        "Teacher.min_accuracy = None",
    ]
    (cell,) = claim(grid={"method": [KD]}, params=elsewhere).read().cells
    assert set(elsewhere) <= set(cell.params)


def test_cells_that_were_sent_stay_though_they_are_not_asked_for_again(claim):
    folder = claim(grid={"method": [KD]}, seeds=[0, 1])
    folder.ledger.add("sent", "kd-seed0", "local")
    claim(grid={"method": [KD]}, seeds=[2])
    assert [cell.key for cell in folder.read().cells] == ["kd-seed0", "kd-seed2"]
    asked = folder.read().cells[1:]
    assert [cell.key for cell in due(folder, asked)] == ["kd-seed2"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "other"}, "its name is study there, other here"),
        ({"grid": {"SGD.lr": [0.1]}, "base": [KD]}, "its axes are method there, SGD.lr here"),
        ({"params": ["epochs = 9"]}, "the cell kd-seed0 has no more there, epochs = 9 here"),
    ],
)
def test_another_sweeps_directory_is_refused(claim, settings, message):
    before = claim(grid={"method": [KD]}).read()
    with pytest.raises(WorkdirError) as caught:
        claim(**{"grid": {"method": [KD]}, **settings})
    assert message in str(caught.value)
    assert claim(grid={"method": [KD]}).read() == before


def test_a_gin_file_that_was_changed_meanwhile_is_reported(claim, tmp_path):
    mine = tmp_path / "mine.gin"
    mine.write_text("include 'gin/digits/kd.gin'\nepochs = 3\n")
    claim(base=[str(mine)])
    mine.write_text("include 'gin/digits/kd.gin'\nepochs = 4\n")
    with pytest.raises(WorkdirError, match="its Gin files, or their order, were changed"):
        claim(base=[str(mine)])


def test_one_launcher_sends_at_a_time(tmp_path, python):
    folder = SweepFolder(tmp_path / "sweep")
    with folder.owned():
        done = python(
            "from pathlib import Path\nfrom ctkd.locks import is_locked\n"
            f"print(is_locked(Path({str(folder.path / '.lock')!r})))"
        )
    assert done.out.strip() == "True", done.err
    assert not is_locked(folder.path / ".lock")


def test_a_lock_goes_with_the_process_that_held_it(tmp_path, python):
    done = python(
        "import os\nfrom pathlib import Path\nfrom ctkd.locks import locked\n"
        f"with locked(Path({str(tmp_path / 'lock')!r})): os._exit(9)"
    )
    assert done.status == 9
    with locked(tmp_path / "lock", 0) as ours:
        assert ours


def test_a_description_of_another_version_is_reported(claim):
    folder = claim(grid={"method": [KD]})
    (folder.path / "sweep.json").write_text('{"name": "study"}')
    with pytest.raises(DataError, match="another version"):
        folder.read()


def test_a_task_is_plain_values(claim):
    folder = claim(grid={"method": [KD]})
    saved = folder.read()
    task = folder.task(saved.cells[0], saved.resources)
    assert all(isinstance(value, (str, int, tuple)) for value in dataclasses.asdict(task).values())
