"""The folder of another user's sweep: it can be followed and reported, not changed."""

import pytest

from ctkd.commands.report_sweep import main as report
from ctkd.sweeps.check import check
from ctkd.sweeps.folder import SweepFolder, saved_sweep
from ctkd.sweeps.study import read_study


@pytest.fixture
def theirs(tmp_path, sweep_file, read_only):
    """A sweep whose launcher ended before its one run began; nothing in it can be written."""
    file = sweep_file(base=["gin/digits/kd.gin"], seeds=[0])
    study = read_study(str(file))
    folder = SweepFolder(tmp_path / "sweep")
    with folder.owned():
        folder.claim(saved_sweep(study, folder, check(study, supplies=False)), study.config)
    folder.ledger.add("sent", "kd-seed0", "local")
    with read_only(folder.path):
        yield folder.path


def test_its_status_is_shown(theirs, launch):
    result = launch("--status", f"--sweep_dir={theirs}")
    assert (result.status, result.err) == (0, "")
    assert "1 runs: 1 stopped" in result.out


def test_it_is_not_cancelled(theirs, launch):
    result = launch("--cancel", f"--sweep_dir={theirs}")
    assert result.status == 2
    assert result.err == f"ctkd: cannot use {theirs}/sent.jsonl: Permission denied\n"


def test_it_is_not_sent(theirs, launch):
    sweep = theirs.parent / "study.gin"
    result = launch(f"--sweep={sweep}", f"--sweep_dir={theirs}", "--cluster=local")
    assert result.status == 2
    assert result.err == (
        f"ctkd: cannot use {theirs}: Permission denied; give another --sweep_dir\n"
    )


def test_its_report_goes_elsewhere(theirs, capsys):
    assert report([str(theirs)]) == 2
    assert "; `ctkd report --out` writes it into another folder\n" in capsys.readouterr().err
    out = theirs.parent / "out"
    assert report([str(theirs), f"--out={out}"]) == 0
    assert {path.name for path in out.iterdir()} == {"report.html", "report.csv", "runs.csv"}


def test_what_cannot_be_read_is_not_taken_for_something_else(theirs, launch, read_only):
    with read_only(theirs / "sweep.json", hidden=True):
        result = launch("--status", f"--sweep_dir={theirs}")
    assert result.status == 2
    assert "sweep.json cannot be read: Permission denied" in result.err
