"""The table of a sweep's runs: what it shows, and how often SLURM is asked."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from ctkd.sweeps import slurm, status_table
from ctkd.sweeps.cell_states import statuses
from ctkd.sweeps.jobs import JobState
from ctkd.sweeps.status_table import counts, duration, follow, new_console, view


def render(found):
    console = new_console()
    with console.capture() as capture:
        console.print(view(found))
    return capture.get()


def test_progress_and_time_left(folder, known, note):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    known["5_0"] = JobState("running", "n3")
    place = folder.workdir("kd-seed0")
    place.mkdir(parents=True)
    rows = [{"epoch": n, "test_top1": 50.0 + n, "temperature": 4.0} for n in (1, 2, 3, 4)]
    path = place / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"epoch": 5, "te')
    written = path.stat().st_mtime
    # Two of four epochs were an earlier job's; this one has needed 100 s for its two.
    note(state="running", job="5_0", started=written - 100, epochs_before=2)
    status = statuses(folder)[0]
    assert (status.epoch, status.accuracy, status.node) == (4, 54.0, "n3")
    assert 290 <= status.seconds_left <= 300
    shown = render([status])
    assert "4/10" in shown
    assert "54.00" in shown


def test_the_view_shows_what_went_wrong_and_counts(folder, known, note):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    note(state="failed", job="5_0", error="it broke\nbadly")
    shown = render(statuses(folder))
    assert "kd-seed0: failed: it broke\n" in shown
    assert "3 runs: 2 not sent, 1 failed" in shown
    assert counts(statuses(folder)) in shown


def test_a_long_table_is_cut_to_what_matters_most(folder, known, note):
    folder.ledger.add("sent", "kd-seed2", "slurm", "5_0")
    note("kd-seed2", state="failed", job="5_0", error="it broke")
    console = new_console()
    with console.capture() as capture:
        console.print(view(statuses(folder), rows=1))
    assert "… and 2 more" in capture.get()
    assert capture.get().index("kd-seed2") < capture.get().index("… and")
    assert "kd-seed0" not in capture.get()


def test_at_80_columns_names_are_cut_and_numbers_are_whole(folder, known):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    known["5_0"] = JobState("running", "n3")
    status = statuses(folder)[0]
    cell = replace(status.cell, key=f"{'CosineLambda.end=0.5,' * 3}-seed0")
    long = replace(status, cell=cell, epoch=10, accuracy=93.25, temperature=9.5)
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        console.print(view([long], width=80))
    lines = [line.rstrip() for line in capture.get().splitlines()]
    (row,) = (line for line in lines if "running" in line and "…" in line)
    assert row.split()[1:5] == ["running", "10/10", "93.25", "9.50"]
    assert "-seed0" in row.split()[0]
    assert max(map(len, lines)) <= 80


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
    monkeypatch.setattr(status_table, "AGAIN", 0.0)
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


def test_a_cluster_that_never_answered_or_stays_silent_is_an_error(folder, known, monkeypatch):
    def silent():
        raise slurm.ClusterError("squeue: Socket timed out")

    with pytest.raises(slurm.ClusterError):
        follow(silent, slowest=0.0, console=new_console())
    monkeypatch.setattr(status_table, "PATIENCE", 0.0)
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    known["5_0"] = JobState("running", "n1")
    looks = iter([lambda: statuses(folder), silent])
    with pytest.raises(slurm.ClusterError):
        follow(lambda: next(looks)(), slowest=0.0, console=new_console())


def test_slurm_is_asked_less_and_less_often_while_nothing_changes(folder, known, monkeypatch):
    folder.ledger.add("sent", "kd-seed0", "slurm", "5_0")
    phases = iter(["queued"] * 30 + ["running"] * 2 + ["ended"])
    pauses = []
    monkeypatch.setattr(status_table.time, "sleep", pauses.append)

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
