"""What sbatch and a site's wrapper of it may print, and what the launcher makes of it."""

import getpass
import json

import pytest

from ctkd.sweeps import sbatch, slurm
from ctkd.sweeps.sbatch import read_id
from ctkd.sweeps.study import read_study

SENTENCE = "Submitted batch job 15786755"
DENIED = (
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit "
    "limit, user's size and/or time limits)\n"
)


@pytest.mark.parametrize(
    ("out", "cluster"),
    [
        (SENTENCE, ""),
        (f"{SENTENCE} on cluster gpu.north", "gpu.north"),
        (f"{SENTENCE} on cluster gpu.", "gpu"),
        ("15786755", ""),
        ("15786755;gpu", "gpu"),
        ("15786755;", ""),
        ("\r\n  15786755 \r\n", ""),
        (f"Welcome to node 7!\n*** Quota: 120 of 500 GB ***\n{SENTENCE}\nHave 1 nice day\n", ""),
        ("Welcome, 3 jobs run\n15786755;gpu\nbye", "gpu"),
        (f"job 12 is the oldest\n{SENTENCE}", ""),
        (f"\x1b[32m{SENTENCE}\x1b[0m", ""),
        ("Your job 15786755 has been queued", ""),
        ("JobID: 15786755", ""),
        (b"Gr\xfc\xdfe\n15786755\n", ""),
    ],
)
def test_a_job_id_is_read_whatever_is_printed_around_it(study, site, out, cluster):
    site.answers("sbatch", out)
    result, sweep = study()
    assert (result.status, result.err) == (0, "")
    assert "2 runs were sent to SLURM" in result.out
    name = f";{cluster}" if cluster else ""
    assert sweep.jobs() == {f"kd-seed{n}": f"15786755_{n}{name}" for n in (0, 1)}
    # submitit's task finds what it has to run under the number.
    assert (sweep.folder.jobs / "15786755_1_submitted.pkl").exists()
    assert (sweep.folder.jobs / "15786755_submission.sh").exists()
    assert len(site.calls("sbatch")) == 1


@pytest.mark.parametrize(
    "text", ["", "sent", "3 jobs, 4 nodes", f"{SENTENCE}\nSubmitted batch job 2"]
)
def test_a_text_without_exactly_one_job_id_gives_none(text):
    assert read_id(text) is None


def test_a_single_run_is_no_array(study, site):
    site.answers("sbatch", "15786755;gpu")
    _, sweep = study(seeds=1)
    assert sweep.jobs() == {"kd-seed0": "15786755;gpu"}
    assert "--array" not in (sweep.folder.jobs / "15786755_submission.sh").read_text()


def test_an_id_on_standard_error_counts(study, site):
    site.answers("sbatch", err=SENTENCE)
    assert study()[1].jobs()["kd-seed0"] == "15786755_0"


def test_a_wrapper_that_fails_after_the_job_was_queued_has_sent_it(study, site):
    site.answers("sbatch", SENTENCE, "mail: no such user", status=1)
    result, sweep = study()
    assert (result.status, sweep.jobs()["kd-seed0"]) == (0, "15786755_0")


def test_a_silent_wrapper_is_answered_by_squeue(study, site):
    """The batch script's name is known, and squeue shows it."""
    site.answers("sbatch", "Request accepted. Have a nice day.")
    site.runs(
        "sbatch", 'echo "41|/home/me/other.sh" > "$D/list"', 'echo "42_[0-1]|$1" >> "$D/list"'
    )
    site.runs("squeue", 'cat "$D/list"')
    result, sweep = study()
    assert (result.status, sweep.jobs()["kd-seed1"]) == (0, "42_1")


def test_a_job_without_an_id_is_noted_and_never_sent_again_unasked(study, site, launch):
    site.answers("sbatch", "Request accepted.\nHave a nice day.")
    site.answers("squeue", "41|/home/me/other.sh\n")
    result, sweep = study()
    assert result.status == 2
    assert "sbatch printed no job id that can be read here:\n  Request accepted.\n" in result.err
    assert "The job was probably queued" in result.err
    assert "refused" not in result.err
    assert f"squeue -u {getpass.getuser()} --name=ctkd-study" in result.err
    assert "scancel --name=ctkd-study" in result.err
    assert set(sweep.states().values()) == {"unknown"}
    for flags in ((), ("--wait",)):
        again, _ = study(*flags)
        assert again.status == 2
        assert "an earlier attempt to send kd-seed0, kd-seed1 (2 in all) ended without" in again.err
        assert "--cancel" in again.err
    assert len(site.calls("sbatch")) == 1
    shown = launch("--sweep_dir=sweep", "--status")
    assert (shown.status, shown.out.count("so the run may be in the queue")) == (0, 2)
    ended = launch("--sweep_dir=sweep", "--cancel")
    assert ended.out.startswith("cancelled: kd-seed0, kd-seed1\nsqueue shows no job of the attempt")
    assert set(sweep.states().values()) == {"cancelled"}
    site.answers("sbatch", SENTENCE)
    assert study()[0].status == 0
    assert sweep.jobs() == {"kd-seed0": "15786755_0", "kd-seed1": "15786755_1"}


def test_cancel_ends_a_job_without_an_id_if_squeue_shows_it_later(study, site, launch):
    site.runs("sbatch", 'echo "42_[0-1]|$1" > "$D/list"')
    study()
    site.runs("squeue", 'cat "$D/list"')
    ended = launch("--sweep_dir=sweep", "--cancel")
    assert ended.out == "cancelled: kd-seed0, kd-seed1\n"
    assert site.calls("scancel") == ["42"]


def test_a_launcher_that_dies_in_sbatch_leaves_no_run_to_be_sent_twice(study, site, monkeypatch):
    def dies(batch):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sbatch, "submit", dies)
        assert study()[0].status == 130
    assert "an earlier attempt" in study()[0].err
    assert site.calls("sbatch") == []


def test_an_sbatch_that_does_not_answer_may_have_queued_the_job(study, site, monkeypatch):
    monkeypatch.setattr(sbatch, "PATIENCE", 0.3)
    site.runs("sbatch", "exec sleep 20")
    result, sweep = study()
    assert result.status == 2
    assert "sbatch does not answer within 0.3 s. The job may have been queued" in result.err
    assert set(sweep.states().values()) == {"unknown"}


def test_a_connection_that_was_lost_may_have_queued_the_job(study, site):
    lost = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    site.answers("sbatch", err=lost, status=1)
    result, _ = study()
    assert "probably queued" in result.err
    assert "Socket timed out" in result.err


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (DENIED, "Send fewer runs at a time"),
        ("sbatch: error: invalid partition specified: x\n", "sinfo -s"),
        ("site policy: no projects in November\n", ""),
        ("", "it failed without a message"),
    ],
)
def test_a_refusal_is_passed_on_with_advice_and_leaves_nothing(study, site, words, advice):
    site.answers("sbatch", err=words, status=1)
    result, sweep = study()
    assert result.status == 2
    assert result.err.startswith("ctkd: sbatch refused the sweep: ")
    for line in words.splitlines():
        assert line.removeprefix("sbatch: error: ") in result.err
    assert advice in result.err
    assert sweep.jobs() == {}
    assert [path.name for path in sweep.folder.jobs.iterdir()] == []
    site.answers("sbatch", SENTENCE)
    assert study()[0].status == 0


def test_a_refusal_leaves_what_was_sent_earlier(study, site):
    site.answers("sbatch", SENTENCE)
    _, sweep = study()
    site.answers("sbatch", err=DENIED, status=1)
    site.answers(
        "squeue", "15786755_0|FAILED|n1|2020-01-01T00:00:00|x\n15786755_1|RUNNING|n1|N/A|\n"
    )
    assert study()[0].status == 2
    assert sweep.jobs()["kd-seed0"] == "15786755_0"
    assert sweep.states() == {"kd-seed0": "killed", "kd-seed1": "running"}


def test_programs_that_cannot_be_run_are_no_traceback(study, site, monkeypatch):
    monkeypatch.setenv("PATH", str(site.folder))  # else the next sbatch would be taken
    (site.folder / "sbatch").write_bytes(b"\x7fELF")
    result, sweep = study()
    assert result.status == 2
    assert "sbatch cannot be run: " in result.err
    assert sweep.jobs() == {}


def test_a_ledger_with_events_of_another_version_is_read(study, site):
    site.answers("sbatch", SENTENCE)
    _, sweep = study()
    with sweep.folder.ledger.path.open("a") as file:
        file.write("5\n" + json.dumps({"event": "paused", "of": "kd-seed0"}) + "\n")
    assert sweep.jobs()["kd-seed0"] == "15786755_0"


def test_the_name_of_a_cluster_is_used_in_every_later_call(study, site, launch):
    site.answers("sbatch", "15786755;gpu")
    _, sweep = study()
    site.answers("squeue", "CLUSTER: gpu\n15786755_[0-1]|PENDING||N/A|Priority\n")
    assert sweep.states() == {"kd-seed0": "queued", "kd-seed1": "queued"}
    assert site.calls("squeue")[-1].startswith("-M gpu ")
    site.answers("squeue", "CLUSTER: gpu\n15786755|CANCELLED||N/A|Priority\n")
    slurm.cancel(list(sweep.jobs().values()))
    assert site.calls("scancel") == ["-M gpu 15786755_0 15786755_1"]


def test_without_slurms_database_the_cluster_that_is_here_still_answers(study, site):
    site.answers("sbatch", "15786755;gpu")
    _, sweep = study()
    site.runs(
        "squeue",
        '[ "$1" = -M ] && { echo "squeue: error: Problem talking to database" >&2; exit 1; }',
        "echo '15786755_[0-1]|PENDING||N/A|Priority'",
    )
    site.answers("scontrol", "ClusterName             = gpu\n")
    assert sweep.states()["kd-seed0"] == "queued"
    site.answers("scontrol", "ClusterName             = cpu\n")
    with pytest.raises(slurm.ClusterError, match="Problem talking to database"):
        sweep.states()


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
