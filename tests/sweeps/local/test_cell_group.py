"""Cells of a sweep that one process of this machine trains."""

import json
import signal
from types import SimpleNamespace

import pytest

from ctkd.sweeps.cell_group import groups_of

KD, CTKD = "gin/digits/kd.gin", "gin/digits/ctkd.gin"


@pytest.fixture
def here(launch, sweep_file, sent):
    """Runs a sweep on this machine in groups of three; returns the Result and the sweep."""

    def call(*flags, cluster="local", **study):
        path = sweep_file(**{"base": [KD], "params": ["teacher_weights = 'none.pt'"], **study})
        where = ("--sweep_dir=sweep", f"--cluster={cluster}", "--group=3")
        return launch("--sweep", path, *where, *flags), sent("sweep")

    return call


def test_cells_that_share_data_and_teacher_make_groups_in_their_order():
    cells = [SimpleNamespace(key=k, shares=s) for k, s in enumerate(("a", "b", "a", "a", "", ""))]
    keys = [[cell.key for cell in group] for group in groups_of(cells, 2)]
    assert keys == [[0, 2], [1], [3], [4], [5]]
    assert [len(group) for group in groups_of(cells, 1)] == [1] * 6


def test_a_killed_group_starts_again_without_its_finished_runs(here, script):
    """The script finishes the first run of a group, and is killed."""
    script(
        '[ -n "$W" ] && finish',
        'shift 2; D="$1"; shift; W="$D/runs/$1"; mkdir -p "$W"; echo "$*" >> "$D/calls"',
        """echo '{"state": "finished"}' > "$D/notes/$1.json" """,
        """echo '{"finished": true, "last_top1": 50.0}' > "$W/summary.json"; kill -9 $$""",
    )
    result, sweep = here(seeds=[0, 1, 2])
    assert result.status == 0, result.out
    keys = [f"kd-seed{seed}" for seed in range(3)]
    calls = (sweep.path / "calls").read_text().splitlines()
    assert calls == [" ".join(keys), " ".join(keys[1:])]  # the last one was trained alone
    assert [sweep.folder.ledger.read()[key].again for key in keys] == [0, 1, 2]


def test_the_error_of_a_process_is_that_of_all_its_runs(here, script):
    script('echo "ctkd: no data" >&2; exit 2')
    result, sweep = here("--batch_size=32", seeds=[0, 1])
    assert result.status == 1
    assert [sweep.note(key)["error"] for key in sweep.states()] == ["no data"] * 2


@pytest.mark.parametrize(
    ("flags", "cluster", "message"),
    [
        ([], "slurm", "Resources.group = 3: on SLURM each run is a job of its own"),
        (["--tasks=2"], "local", "Resources.group = 3: expected 1 for runs of several tasks"),
    ],
)
def test_runs_that_cannot_be_grouped(here, flags, cluster, message):
    result, _ = here(*flags, cluster=cluster)
    assert result.status == 2
    assert message in result.err


@pytest.mark.slow
def test_a_stopped_group_continues_and_each_run_has_its_state_and_log(here, small, when, sent):
    wild = {"wild": [KD, "SGD.lr = 1e30"]}
    study = {"base": [], "grid": {"method": {"kd": KD, "ctkd": CTKD, **wild}}}
    study["params"] = [*small, "epochs = 12", "steps_per_epoch = 8"]
    sweep = sent("sweep")
    when(lambda: sweep.note("wild-seed0").get("state") == "failed", signal.SIGINT)
    result, _ = here(**study)
    assert result.status == 130, result.out + result.err
    states = {"kd-seed0": "stopped", "ctkd-seed0": "stopped", "wild-seed0": "failed"}
    assert sweep.states() == states
    assert "was NaN or infinite first at step" in sweep.note("wild-seed0")["error"]
    result, _ = here(**study)
    assert result.status == 1, result.out + result.err
    states |= {"kd-seed0": "finished", "ctkd-seed0": "finished"}
    assert sweep.states() == states
    for key in ("kd-seed0", "ctkd-seed0"):
        log = sweep.folder.local_log(key).read_text()
        assert "resumed at step" in log
        assert "epoch 12/12" in log
        assert json.loads((sweep.folder.workdir(key) / "summary.json").read_text())["finished"]
    assert (sweep.path / "report.html").exists()
