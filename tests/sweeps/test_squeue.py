"""What squeue may print, and that no cell is sent while a job of it may still run."""

import time
from datetime import datetime

import pytest

from ctkd.sweeps import cancel as cancel_module
from ctkd.sweeps import slurm
from ctkd.sweeps import status_table as status_module
from ctkd.sweeps.jobs import JobState
from ctkd.sweeps.squeue import SETTLED, read_listing

NOW = 1_700_000_000.0


def moment(seconds):
    """A time as squeue prints it, so many seconds after NOW."""
    return datetime.fromtimestamp(NOW + seconds).isoformat()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("5_0|PENDING||N/A|Resources", JobState("queued", "", "Resources")),
        ("5_0|PENDING||N/A|a | b", JobState("queued", "", "a | b")),
        ("5_0|PENDING", JobState("queued")),
        ("5_0|RUNNING|n1|2024-01-01T00:00:00|None", JobState("running", "n1")),
        ("5_0|COMPLETING|n[1-2,4]|N/A|None", JobState("running", "n[1-2,4]")),
        ("5_0|SUSPENDED|n1|N/A|None", JobState("running", "n1")),
        ("5_0|REVOKED||N/A|None", JobState("running", "another cluster of the federation")),
        ("5_0|CANCELLED|n1|N/A|None", JobState("cancelled", "n1")),
        ("5_0|CANCELLED by 1000|n1|N/A|None", JobState("cancelled", "n1")),
        ("5_0|CANCELLED+|n1|N/A|None", JobState("cancelled", "n1")),
        ("5_0|FAILED|n1|N/A|NonZeroExitCode", JobState("ended", "n1")),
        ("5_0|OUT_OF_MEMORY|n1|N/A|OutOfMemory", JobState("ended", "n1")),
        ("5_0@gpu|RUNNING|n1|N/A|None", JobState("running", "n1")),
        ("5_0;gpu|RUNNING|n1|N/A|None", JobState("running", "n1")),
        ("5|CANCELLED||N/A|None", JobState("cancelled")),  # before any task has started
        ("5_[0-5%2]|PENDING||N/A|Priority", JobState("queued", "", "Priority")),
        ("5_[4,0]|PENDING||N/A|Priority", JobState("queued", "", "Priority")),
        ("5_[8-14:2,...]|PENDING||N/A|Priority", JobState("queued", "", "Priority")),
        ("5_[8-14,|PENDING||N/A|Priority", JobState("queued", "", "Priority")),
        ("5_[8-14:2,3]|PENDING||N/A|Priority", None),
        ("5_1|PENDING||N/A|Priority", None),
        ("55_0|PENDING||N/A|Priority", None),
        ("CLUSTER: gpu", None),
        ("", None),
    ],
)
def test_a_line_of_squeue(line, expected):
    assert read_listing(f"{line}\n", "5", NOW).of("5_0") == expected


def test_ranges_with_steps():
    listing = read_listing("5_[0-6:3,9]|PENDING||N/A|x\n", "5", NOW)
    assert sorted(listing.tasks) == ["0", "3", "6", "9"]


def test_the_first_part_of_a_heterogeneous_job_speaks_for_all():
    listing = read_listing("5+0|RUNNING|n1|N/A|None\n5+1|PENDING||N/A|None\n", "5", NOW)
    assert listing.of("5") == JobState("running", "n1")


@pytest.mark.parametrize(
    "state", ["REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"]
)
def test_what_was_requeued_is_queued(state):
    assert read_listing(f"5_0|{state}||N/A|None\n", "5", NOW).of("5_0").phase == "queued"


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED"])
def test_what_slurm_requeues_has_ended_only_after_a_while(state):
    def phase(end):
        return read_listing(f"5_0|{state}|n1|{end}|None\n", "5", NOW).of("5_0").phase

    assert phase(moment(-1)) == "queued"
    assert phase(moment(1 - SETTLED)) == "queued"
    assert phase(moment(-1 - SETTLED)) == "ended"
    assert {phase(end) for end in ("N/A", "NONE", "Unknown", "", "yesterday")} == {"queued"}


def test_a_state_of_another_version_is_unclear():
    found = read_listing("5_0|HIBERNATED|n1|N/A|None\n", "5", NOW).of("5_0")
    assert found.phase == "unclear"
    assert found.reason == "squeue calls its state HIBERNATED, which is not known here"


def test_lines_that_are_no_jobs_make_only_the_missing_jobs_unclear():
    text = "Maintenance on Monday!\n5_0|RUNNING|n1|N/A|None\n|\nerror|error\n"
    listing = read_listing(text, "5", NOW)
    assert listing.of("5_0") == JobState("running", "n1")
    assert listing.of("5_1").phase == "unclear"
    assert listing.of("5_1").reason.startswith("squeue printed 3 lines that are no job's: 'Maint")


@pytest.fixture
def two(study, site):
    """A sweep of two cells that are queued."""
    site.answers("sbatch", "7")
    _, sweep = study()
    return sweep


@pytest.mark.parametrize(
    "line", [b"\xff\xfe \x00", b"7_0|", b"|||||", b"7_[|PENDING", b"7_0 gpu ctkd R 0:10 1 n1", b"7"]
)
def test_lines_that_cannot_be_read_end_in_a_sentence(two, site, launch, line):
    site.answers("squeue", line + b"\n")
    result = launch("--sweep_dir=sweep", "--status")
    assert (result.status, result.err) == (0, "")
    assert "2 runs:" in result.out
    assert set(two.states().values()) <= {"unknown", "queued"}
    if set(two.states().values()) == {"unknown"}:
        assert "squeue printed a line that is no job's" in result.out


@pytest.mark.parametrize("variable", ["SQUEUE_USERS", "SQUEUE_PARTITION", "SQUEUE_STATES"])
def test_a_users_filters_of_squeue_do_not_hide_jobs(two, site, monkeypatch, variable):
    monkeypatch.setenv(variable, "nobody")
    site.runs("squeue", f'[ -z "${variable}" ] && echo "7_[0-1]|PENDING||N/A|x" || true')
    assert set(two.states().values()) == {"queued"}


def test_a_squeue_that_prints_nothing_is_checked_by_scontrol(two, site, study):
    site.answers("squeue")
    assert set(two.states().values()) == {"killed"}  # scontrol has forgotten the job as well
    site.answers("scontrol", "JobId=7 ArrayJobId=7 ArrayTaskId=0-1 JobState=PENDING\n")
    assert set(two.states().values()) == {"unknown"}
    assert "0 runs were sent" in study()[0].out
    site.answers("scontrol", err="scontrol: error: Unable to contact slurm controller", status=1)
    assert set(two.states().values()) == {"unknown"}
    assert len(site.calls("sbatch")) == 1


@pytest.mark.parametrize(
    "line", ["7_[0-1]|PREEMPTED||{now}|None", "7_[0-1]|HIBERNATED||N/A|x", "??"]
)
def test_a_cell_whose_job_may_come_back_is_not_sent_by_hand(two, site, study, line):
    now = datetime.fromtimestamp(time.time()).isoformat(timespec="seconds")
    site.answers("squeue", line.format(now=now) + "\n")
    result, _ = study()
    assert (result.status, len(site.calls("sbatch"))) == (0, 1)
    assert "0 runs were sent" in result.out


@pytest.mark.parametrize(
    "state", ["PREEMPTED", "NODE_FAIL", "COMPLETING", "HIBERNATED", "REQUEUED"]
)
def test_a_preempted_cell_is_never_in_two_jobs(study, site, sent, monkeypatch, state):
    """squeue shows the end of the job before it shows the requeue; --wait looks in between."""
    monkeypatch.setattr(status_module.time, "sleep", lambda seconds: None)
    site.answers("sbatch", "7")
    site.runs(
        "squeue",
        'echo >> "$D/looks"; n=$(wc -l < "$D/looks"); end=$(date +%Y-%m-%dT%H:%M:%S)',
        f'case $n in 1|2|3) s="RUNNING|n1|N/A";; 4|5|6|7) s="{state}||$end";;',
        '8|9) s="PENDING||N/A";; 10|11) s="RUNNING|n2|N/A";;',
        '*) s="CANCELLED|n2|2020-01-01T00:00:00";; esac',
        'echo "7|$s|None"',
    )
    result, sweep = study("--wait", seeds=1)
    assert len(site.calls("squeue")) > 11  # it followed the job to its real end
    assert (result.status, sweep.states()) == (1, {"kd-seed0": "cancelled"})
    assert len(site.calls("sbatch")) == 1


def test_a_preempted_job_that_is_not_requeued_is_sent_again(study, site, sent):
    site.answers("sbatch", "7")
    site.answers("squeue", "7|PREEMPTED|n1|2020-01-01T00:00:00|None\n")
    _, sweep = study(seeds=1)
    assert sweep.states() == {"kd-seed0": "killed"}
    site.answers("sbatch", "8")
    study(seeds=1)
    assert sweep.folder.ledger.read()["kd-seed0"].jobs == ["7", "8"]


def test_a_cluster_that_fails_leaves_what_the_files_show(two, site, launch):
    site.answers("squeue", err="squeue: error: Unable to contact slurm controller", status=1)
    result = launch("--sweep_dir=sweep", "--status")
    assert (result.status, result.err) == (2, "ctkd: squeue: Unable to contact slurm controller\n")
    assert "2 runs: 2 unknown" in result.out


def test_a_slow_squeue_is_an_error_of_one_line(two, site, launch, monkeypatch):
    monkeypatch.setattr(slurm, "PATIENCE", 0.3)
    site.runs("squeue", "exec sleep 20")
    result = launch("--sweep_dir=sweep", "--status")
    assert (result.status, result.err) == (2, "ctkd: squeue does not answer within 0.3 s\n")


def test_cancel_needs_no_squeue(two, site, launch):
    site.answers("squeue", err="squeue: error: Unable to contact slurm controller", status=1)
    result = launch("--sweep_dir=sweep", "--cancel")
    assert result.status == 0
    assert result.out.startswith("cancelled: kd-seed0, kd-seed1\nsqueue: Unable to contact")
    assert "scancel was called for every run that is not finished" in result.out
    assert site.calls("scancel") == ["7_0 7_1"]


def test_cancel_ends_jobs_of_an_unclear_state(two, site, launch, monkeypatch):
    monkeypatch.setattr(cancel_module, "PATIENCE", 0.0)
    site.answers("squeue", "7_0|HIBERNATED|n1|N/A|x\n7_1|FAILED|n1|N/A|x\n")
    result = launch("--sweep_dir=sweep", "--cancel")
    assert result.out == "cancelled: kd-seed0\n"
    assert site.calls("scancel") == ["7_0"]


def test_a_scancel_that_fails_is_an_error_and_cancels_nothing(two, site, launch):
    site.answers("squeue", "7_[0-1]|PENDING||N/A|x\n")
    site.answers("scancel", err="scancel: error: Access/permission denied", status=1)
    result = launch("--sweep_dir=sweep", "--cancel")
    assert (result.status, result.err) == (2, "ctkd: scancel: Access/permission denied\n")
    assert {entry.event for entry in two.folder.ledger.read().values()} == {"sent"}


def test_jobs_that_have_ended_meanwhile_are_cancelled_already(two, site):
    for words in ("Invalid job id specified", "Job/step already completing or completed"):
        site.answers(
            "scancel", err=f"scancel: error: Kill job error on job id 7_0: {words}", status=1
        )
        slurm.cancel(["7_0"])
