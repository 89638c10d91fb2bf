"""The status of cells, from files and from what SLURM knows; no cluster is needed."""

import json
import socket

import pytest

from ctkd.results.read.schema import TEACHER_FILE
from ctkd.sweeps import sbatch, send, slurm
from ctkd.sweeps.arrays import send as send_arrays
from ctkd.sweeps.cancel import cancel
from ctkd.sweeps.cell_states import statuses
from ctkd.sweeps.jobs import JobState
from ctkd.sweeps.status_table import counts


def first(folder):
    return statuses(folder)[0]


@pytest.mark.parametrize(
    ("phase", "expected"),
    [("queued", "queued"), ("running", "running"), ("cancelled", "cancelled")],
)
def test_a_job_that_the_cluster_knows(folder, known, phase, expected):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    known["5_0"] = JobState(phase, "n7", "Priority" if phase == "queued" else "")
    assert first(folder).state == expected
    assert statuses(folder)[1].state == "not sent"


def test_a_job_of_which_nobody_knows_was_killed(folder, known):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    folder.jobs.mkdir()
    (folder.jobs / "5_0_0_log.err").write_text("one\nslurmstepd: out of memory\n\n")
    status = first(folder)
    assert (status.state, status.error) == ("killed", "slurmstepd: out of memory")


def test_a_run_that_trains_its_teacher_says_so(folder, known, tmp_path):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    known["5_0"] = JobState("running", "n1")
    (workdir := folder.workdir("kd-seed0")).mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    note = {"phase": "training the teacher", "folder": str(tmp_path), "epochs": 20}
    (workdir / TEACHER_FILE).write_text(json.dumps(note))
    status = first(folder)
    assert (status.state, status.shown) == ("running", "training the teacher")
    assert status.teacher_epochs == "2/20"
    assert counts([status]) == "1 runs: 1 training the teacher"
    (workdir / "metrics.jsonl").write_text('{"epoch": 1}\n')  # the student trains
    assert first(folder).shown == "running"


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        ("failed", "failed"),
        ("interrupted", "stopped"),
        ("running", "killed"),
        ("requeued", "killed"),
    ],
)
def test_what_the_note_of_a_job_that_is_gone_says(folder, known, note, noted, expected):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    note(state=noted, job="5_0", error="it broke" if noted == "failed" else "")
    assert first(folder).state == expected


def test_a_note_of_an_earlier_job_says_nothing(folder, known, note):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    note(state="failed", job="4_0", error="it broke")
    known["5_0"] = JobState("running", "n1")
    assert (first(folder).state, first(folder).error) == ("running", "")


def test_a_preempted_job_waits_to_go_on(folder, known, note):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    note(state="requeued", job="5_0")
    known["5_0"] = JobState("queued", "", "BeginTime")
    assert (first(folder).state, first(folder).node) == ("queued", "preempted, will continue")


def test_a_cancelled_job_stays_cancelled(folder, known, note):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    folder.ledger.add("cancelled", "kd-seed0", "slurm")
    note(state="interrupted", job="5_0")
    assert first(folder).state == "cancelled"
    folder.ledger.add("sent", "kd-seed0", "slurm", "6_0")
    assert first(folder).state == "killed"


def test_a_summary_says_finished_whatever_the_cluster_says(folder, known):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    known["5_0"] = JobState("running", "n1")
    place = folder.workdir("kd-seed0")
    place.mkdir(parents=True)
    summary = {"finished": True, "last_top1": 91.0, "temperature": 4.0, "epochs": 10}
    (place / "summary.json").write_text(json.dumps(summary))
    status = first(folder)
    assert (status.state, status.accuracy, status.epoch) == ("finished", 91.0, 10)


def test_a_run_that_finishes_during_a_look_is_not_lost(folder, monkeypatch):
    def finishing(jobs):
        path = folder.workdir("kd-seed0") / "summary.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"finished": True, "last_top1": 50.0}))
        return {}

    monkeypatch.setattr(slurm, "states", finishing)
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    assert (first(folder).state, first(folder).accuracy) == ("finished", 50.0)


def test_without_asking_what_is_not_decided_is_unknown(folder, known, note):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    folder.ledger.add("sent", "kd-seed1", "slurm", "5_1")
    note("kd-seed1", state="failed", job="5_1", error="it broke")
    states = [status.state for status in statuses(folder, ask=False)]
    assert states == ["unknown", "failed", "not sent"]


@pytest.mark.parametrize(
    ("noted", "trains_here", "expected"),
    [
        (None, True, "queued"),
        (None, False, "stopped"),
        ("running", True, "running"),
        ("running", False, "killed"),
        ("killed", True, "killed"),
        ("failed", True, "failed"),
        ("interrupted", False, "stopped"),
    ],
)
def test_a_run_on_this_machine(folder, note, noted, trains_here, expected):
    folder.ledger.add("sent", "kd-seed0", "local")
    if noted:
        note(state=noted, job=None)
    with folder.owned():
        folder.trains_here = trains_here
        assert first(folder).state == expected


def test_a_run_without_a_launcher_still_runs_while_it_holds_its_work_directory(folder, python):
    folder.ledger.add("sent", "kd-seed0", "local")
    lock = folder.workdir("kd-seed0") / ".lock"
    done = python(
        "from ctkd.locks import locked\nfrom ctkd.sweeps.cell_states import statuses\n"
        "from ctkd.sweeps.folder import SweepFolder\nfrom pathlib import Path\nimport os\n"
        f"folder = SweepFolder(Path({str(folder.path)!r}))\n"
        f"with locked(Path({str(lock)!r})):\n"
        "    if os.fork() == 0: print(statuses(folder)[0].state, flush=True); os._exit(0)\n"
        "    os.wait()"
    )
    assert (done.out, done.err) == ("running\n", "")
    assert first(folder).state == "stopped"


def test_a_run_of_another_machine_is_unknown_until_it_has_ended(folder, note, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "desk")
        folder.ledger.add("sent", "kd-seed0", "local")
    note(state="running", job=None)
    assert (first(folder).state, first(folder).node) == ("unknown", "desk")
    monkeypatch.setattr(socket, "gethostname", lambda: "desk.local")  # as some networks call it
    assert first(folder).state == "killed"
    monkeypatch.undo()
    note(state="failed", job=None, error="it broke")
    assert first(folder).state == "failed"


def test_cancel_leaves_runs_of_this_machine_to_their_launcher(folder, launch, note):
    folder.ledger.add("sent", "kd-seed0", "local")
    note(state="running", job=None)
    assert launch("--sweep_dir", folder.path, "--cancel").out == "nothing waits or runs on SLURM\n"
    with folder.owned():
        folder.trains_here = True
        assert "Ctrl-C in the terminal of their launcher" in " ".join(cancel(folder).remarks)


def test_a_torn_line_of_the_ledger_is_passed_over(folder):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0", again=True)
    with folder.ledger.path.open("a") as file:
        file.write('{"event": "se')
    entry = folder.ledger.read()["kd-seed0"]
    assert (entry.jobs, entry.again, entry.host) == (["5_0"], 1, socket.gethostname())
    folder.ledger.add("sent", "kd-seed0", "slurm", "6_0")  # and takes no other with it
    assert folder.ledger.read()["kd-seed0"].jobs == ["5_0", "6_0"]


def test_what_is_lost_is_sent_again_as_often_as_allowed(folder, known, monkeypatch):
    numbers = iter(range(6, 100))
    monkeypatch.setattr(slurm, "available", lambda: True)
    monkeypatch.setattr(
        sbatch, "write", lambda tasks, *_: sbatch.Submission(folder.jobs, "x.sh", tasks)
    )
    monkeypatch.setattr(sbatch, "submit", lambda batch: [f"{next(numbers)}" for _ in batch.tasks])
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    for expected in (1, 1, 0, 0):  # Resources.retries is 2
        assert len(send.send_again(folder, statuses(folder))) == expected
    assert folder.ledger.read()["kd-seed0"].jobs == ["5_0", "6", "7"]
    cells = [status.cell for status in statuses(folder)][:1]
    send_arrays(folder, folder.read(), cells)  # by hand, which counts anew
    assert len(send.send_again(folder, statuses(folder))) == 1


def test_a_failed_cell_is_not_sent_again_unasked_but_by_hand(folder, known, note):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    note(state="failed", job="5_0", error="it broke")
    assert send.send_again(folder, statuses(folder)) == []
    assert [cell.key for cell in send.due(folder, folder.read().cells)] == [
        "kd-seed0",
        "kd-seed1",
        "kd-seed2",
    ]
