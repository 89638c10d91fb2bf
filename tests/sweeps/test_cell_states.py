"""The status of cells, from files and from what the cluster knows; no cluster is needed."""

import dataclasses
import json
import os
import socket

import pytest

from ctkd.errors import ConfigError
from ctkd.sweeps import local, sbatch, send, slurm
from ctkd.sweeps import status_table as status_module
from ctkd.sweeps.cell_states import statuses
from ctkd.sweeps.check import check
from ctkd.sweeps.folder import SweepFolder, saved_sweep
from ctkd.sweeps.jobs import JobState
from ctkd.sweeps.queue import Queue
from ctkd.sweeps.status_table import counts, duration, follow, new_console, view
from ctkd.sweeps.study import read_study


@pytest.fixture
def folder(tmp_path, sweep_file):
    cells = {"base": ["gin/digits/kd.gin"], "params": ["epochs = 10"], "seeds": [0, 1, 2]}
    study = read_study(str(sweep_file(**cells)))
    made = SweepFolder(tmp_path / "sweep")
    with made.owned():
        made.claim(saved_sweep(study, made, check(study, supplies=False)), study.config)
    return made


@pytest.fixture
def known(monkeypatch):
    """What SLURM says of jobs."""
    states = {}
    monkeypatch.setattr(slurm, "states", lambda jobs: {j: states[j] for j in jobs if j in states})
    return states


def note(folder, key, **fields):
    path = folder.note(key)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"node": "n1", **fields}))


def first(folder):
    return statuses(folder)[0]


def test_what_was_never_sent(folder, known):
    assert [status.state for status in statuses(folder)] == ["not sent"] * 3


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


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        ("failed", "failed"),
        ("interrupted", "stopped"),
        ("running", "killed"),
        ("requeued", "killed"),
    ],
)
def test_what_the_note_of_a_job_that_is_gone_says(folder, known, noted, expected):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    note(folder, "kd-seed0", state=noted, job="5_0", error="it broke" if noted == "failed" else "")
    assert first(folder).state == expected


def test_a_note_of_an_earlier_job_says_nothing(folder, known):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    note(folder, "kd-seed0", state="failed", job="4_0", error="it broke")
    known["5_0"] = JobState("running", "n1")
    assert (first(folder).state, first(folder).error) == ("running", "")


def test_a_preempted_job_waits_to_go_on(folder, known):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    note(folder, "kd-seed0", state="requeued", job="5_0")
    known["5_0"] = JobState("queued", "", "BeginTime")
    assert (first(folder).state, first(folder).node) == ("queued", "preempted, to go on")


def test_a_cancelled_job_stays_cancelled(folder, known):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    folder.ledger.add("cancelled", "kd-seed0", "slurm")
    note(folder, "kd-seed0", state="interrupted", job="5_0")
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


def test_what_another_machine_started_is_neither_lost_nor_ended_from_here(
    folder, launch, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "desk")
        folder.ledger.add("sent", "kd-seed0", "local")
        folder.ledger.add("started", "kd-seed0", "local", str(os.getpid()))
    found = first(folder)
    assert (found.state, found.node, found.away) == ("unknown", "desk", True)
    result = launch("--sweep_dir", folder.path, "--cancel")
    assert "left alone: kd-seed0 was started on desk; cancel it there" in result.out
    monkeypatch.setattr(socket, "gethostname", lambda: "desk.local")  # as some networks call it
    assert not first(folder).away
    monkeypatch.undo()
    note(folder, "kd-seed0", state="failed", job=str(os.getpid()), error="it broke")
    assert first(folder).state == "failed"


def test_progress_and_time_left(folder, known):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    known["5_0"] = JobState("running", "n3")
    place = folder.workdir("kd-seed0")
    place.mkdir(parents=True)
    rows = [{"epoch": n, "test_top1": 50.0 + n, "temperature": 4.0} for n in (1, 2, 3, 4)]
    path = place / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"epoch": 5, "te')
    written = path.stat().st_mtime
    # Two of four epochs were an earlier job's; this one has needed 100 s for its two.
    note(folder, "kd-seed0", state="running", job="5_0", started=written - 100, epochs_before=2)
    status = first(folder)
    assert (status.epoch, status.accuracy, status.node) == (4, 54.0, "n3")
    assert 290 <= status.seconds_left <= 300
    shown = render([status])
    assert "4/10" in shown
    assert "54.00" in shown


def test_without_its_queue_a_waiting_cell_is_lost(folder):
    folder.ledger.add("sent", "kd-seed0", "local")
    assert (first(folder).state, first(folder).error) == ("killed", "ended without a message")
    with open(local.queue_lock(prepared(folder)), "w"):
        pass
    assert first(folder).state == "killed"


def prepared(folder):
    folder.jobs.mkdir(exist_ok=True)
    return folder.path


def test_another_process_under_the_number_of_a_job_is_not_that_job(folder):
    folder.ledger.add("sent", "kd-seed0", "local")
    folder.ledger.add("started", "kd-seed0", "local", str(os.getpid()))
    assert first(folder).state == "killed"


def test_without_asking_what_is_not_decided_is_unknown(folder, known):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    folder.ledger.add("sent", "kd-seed1", "slurm", "5_1")
    note(folder, "kd-seed1", state="failed", job="5_1", error="it broke")
    states = [status.state for status in statuses(folder, ask=False)]
    assert states == ["unknown", "failed", "not sent"]


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
    send.send(folder, folder.read(), cells, "slurm")  # by hand, which counts anew
    assert len(send.send_again(folder, statuses(folder))) == 1


def test_a_failed_cell_is_not_sent_again_unasked_but_by_hand(folder, known):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    note(folder, "kd-seed0", state="failed", job="5_0", error="it broke")
    assert send.send_again(folder, statuses(folder)) == []
    assert [cell.key for cell in send.due(folder, folder.read().cells)] == [
        "kd-seed0",
        "kd-seed1",
        "kd-seed2",
    ]


def render(found):
    console = new_console()
    with console.capture() as capture:
        console.print(view(found))
    return capture.get()


def test_the_view_shows_what_went_wrong_and_counts(folder, known):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    note(folder, "kd-seed0", state="failed", job="5_0", error="it broke\nbadly")
    shown = render(statuses(folder))
    assert "kd-seed0: failed: it broke\n" in shown
    assert "3 runs: 2 not sent, 1 failed" in shown
    assert counts(statuses(folder)) in shown


def test_a_long_table_is_cut_to_what_matters_most(folder, known):
    folder.ledger.add("sent", "kd-seed2", "slurm", "5_0")
    note(folder, "kd-seed2", state="failed", job="5_0", error="it broke")
    console = new_console()
    with console.capture() as capture:
        console.print(view(statuses(folder), rows=1))
    assert "… and 2 more" in capture.get()
    assert capture.get().index("kd-seed2") < capture.get().index("… and")
    assert "kd-seed0" not in capture.get()


def test_a_log_has_a_line_for_each_change(folder, known):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    phases = iter(["queued", "running", "running", "ended"])

    def look():
        known["5_0"] = JobState(next(phases), "n1")
        return statuses(folder)

    console = new_console()
    with console.capture() as capture:
        follow(look, slowest=0.0, console=console)
    lines = [line.strip() for line in capture.get().splitlines() if line.startswith("kd-seed0")]
    assert lines[:2] == ["kd-seed0: queued", "kd-seed0: running"]
    assert lines[2].startswith("kd-seed0: killed")


def test_a_cluster_that_is_silent_for_a_while_is_asked_again(folder, known, monkeypatch):
    monkeypatch.setattr(status_module, "AGAIN", 0.0)
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    answers = iter(["running", None, None, "ended"])

    def look():
        phase = next(answers)
        if phase is None:
            raise slurm.ClusterError("squeue: Socket timed out")
        known["5_0"] = JobState(phase, "n1")
        return statuses(folder)

    console = new_console()
    with console.capture() as capture:
        found = follow(look, slowest=0.0, console=console)
    assert found[0].state == "killed"
    assert capture.get().count("squeue: Socket timed out; asking again") == 1


def test_a_cluster_that_never_answered_or_stays_silent_is_told(folder, known, monkeypatch):
    def silent():
        raise slurm.ClusterError("squeue: Socket timed out")

    with pytest.raises(slurm.ClusterError):
        follow(silent, slowest=0.0, console=new_console())
    monkeypatch.setattr(status_module, "PATIENCE", 0.0)
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    known["5_0"] = JobState("running", "n1")
    looks = iter([lambda: statuses(folder), silent])
    with pytest.raises(slurm.ClusterError):
        follow(lambda: next(looks)(), slowest=0.0, console=new_console())


def test_slurm_is_asked_less_and_less_often_while_nothing_changes(folder, known, monkeypatch):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    phases = iter(["queued"] * 30 + ["running"] * 2 + ["ended"])
    pauses = []
    monkeypatch.setattr(status_module.time, "sleep", pauses.append)

    def look():
        known["5_0"] = JobState(next(phases), "n1")
        return statuses(folder)

    follow(look, slowest=30.0, console=new_console())
    assert pauses[0] == 1.0
    assert pauses[:29] == sorted(pauses[:29])
    assert pauses[28] == 30.0
    assert pauses[30] == 1.0  # it has begun to run


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "0:05"), (65, "1:05"), (3599, "59:59"), (7260, "2 h 01")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_jobs_that_slurm_has_forgotten(monkeypatch):
    monkeypatch.setattr(slurm, "_call", lambda command: None)  # "Invalid job id"
    assert slurm.states(["5_0", "5_1"]) == {}


def test_what_is_sent_to_slurm_comes_from_the_resources(sweep_file):
    wanted = {
        "minutes": 90, "gpus": 2, "cpus": 8, "mem_gb": 1.5, "nodes": 2, "partition": "gpu",
        "account": "lab", "constraint": "a100", "parallel": 4,
        "other": {"exclude": "n7", "setup": ["module load cuda"], "srun_args": ["-v"]},
    }  # fmt: skip
    resources = read_study(str(sweep_file(base=["gin/digits/kd.gin"], resources=wanted))).resources
    found = sbatch.parameters(resources, "x")
    expected = {
        "job_name": "ctkd-x", "time": 90, "gpus_per_node": 2, "cpus_per_task": 8, "mem": "1536MB",
        "nodes": 2, "ntasks_per_node": 1, "partition": "gpu", "account": "lab",
        "constraint": "a100", "array_parallelism": 4, "exclude": "n7",
        "srun_args": ["--kill-on-bad-exit=1", "-v"],
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert found["setup"][-1] == "module load cuda"
    assert "qos" not in found


def test_the_machine_carries_as_many_as_its_cores_or_gpus_allow(monkeypatch, sweep_file):
    def capacity(**resources):
        study = read_study(str(sweep_file(base=["gin/digits/kd.gin"], resources=resources)))
        return local.capacity(study.resources)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(local, "devices", lambda: [0, 1, 2, 3])
    assert capacity() == 8
    assert capacity(cpus=3) == 2
    assert capacity(cpus=20) == 1
    assert capacity(parallel=2) == 2
    assert capacity(gpus=1) == 4
    assert capacity(gpus=2, parallel=9) == 2


def test_gpus_are_dealt_out_by_number(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert local.devices() == [2, 3]
    for none in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert local.devices() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937")
    with pytest.raises(ConfigError, match="expected 0,1, say"):
        local.devices()


def test_a_queue_that_is_started_again_leaves_busy_gpus_alone(folder, monkeypatch):
    monkeypatch.setattr(local, "devices", lambda: [0, 1])
    monkeypatch.setattr(local, "is_alive", lambda job, path: True)
    folder.ledger.add("sent", "kd-seed0", "local")
    folder.ledger.add("started", "kd-seed0", "local", "77", devices=[0])
    assert Queue(folder)._free_devices(1) == [1]


def test_a_run_waits_for_gpus_that_runs_with_more_of_them_hold(folder, monkeypatch):
    monkeypatch.setattr(local, "devices", lambda: [0, 1])
    monkeypatch.setattr(local, "capacity", lambda resources: 2)
    monkeypatch.setattr(local, "is_alive", lambda job, path: True)
    saved = folder.read()
    resources = dataclasses.replace(saved.resources, gpus=1)
    monkeypatch.setattr(folder, "read", lambda: dataclasses.replace(saved, resources=resources))
    for key, devices in (("kd-seed0", [0, 1]), ("kd-seed1", [])):
        folder.ledger.add("sent", key, "local")
        if devices:
            folder.ledger.add("started", key, "local", "77", devices=devices)
    queue = Queue(folder)
    monkeypatch.setattr(queue, "_start", lambda *_: pytest.fail("a busy GPU was given out"))
    assert queue.step()
