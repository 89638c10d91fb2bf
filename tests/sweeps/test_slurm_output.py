"""SLURM's commands as sites wrap and configure them: small scripts of their names on the PATH."""

import json
import os

import pytest

from ctkd.sweeps import slurm

CELLS = {"base": ["gin/digits/kd.gin"], "seeds": [0, 1, 2]}


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Puts scripts on the PATH: commands(sbatch="echo 5") -> the lines that were called so far."""
    folder, log = tmp_path / "bin", tmp_path / "called"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def install(**scripts):
        for name, script in scripts.items():
            path = folder / name
            path.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n{script}\n')
            path.chmod(0o755)
        return lambda: log.read_text().splitlines() if log.exists() else []

    install(squeue="exit 0", scancel="exit 0", scontrol="echo MaxArraySize = 1001")
    return install


@pytest.fixture
def sweep(launch, sweep_file, small):
    """Calls the launcher on a sweep of three seeds, for SLURM."""
    path = sweep_file(**CELLS, params=small)
    return lambda *flags: launch(f"--sweep={path}", "--cluster=slurm", "--sweep_dir=sweep", *flags)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Submitted batch job 15786755\n", ("15786755", "")),
        ("Submitted batch job 7 on cluster west\n", ("7", "west")),
        ("15786755\n", ("15786755", "")),
        ("75168975;cluster\n", ("75168975", "cluster")),
        ("Your account has 20 hours left.\nSubmitted batch job 9\n", ("9", "")),
        ("*** welcome ***\n12\n", ("12", "")),
        ("queued\n", None),
        ("", None),
        ("12\n13\n", None),
    ],
)
def test_job_numbers_in_what_sbatch_prints(output, expected):
    assert slurm.read_job(output) == expected


@pytest.mark.parametrize(("printed", "where"), [("15786755", ""), ("15786755;west", "-M west ")])
def test_a_wrapper_that_prints_the_number_alone(commands, sweep, sent, printed, where):
    rows = "; ".join(f"echo '15786755_{k}|RUNNING|n1|None'" for k in range(3))
    called = commands(sbatch=f"echo '{printed}'", squeue=f"echo 'CLUSTER: west'; {rows}")
    first = sweep()
    assert first.status == 0, first.err
    assert "3 runs were sent to SLURM" in first.out
    assert set(sent().jobs().values()) == {f"15786755_{k}" for k in range(3)}
    again = sweep()
    assert "0 runs were sent to SLURM; 3 are finished, waiting or running" in again.out
    assert sum(line.startswith("sbatch") for line in called()) == 1
    assert sweep("--cancel").status == 0
    lines = called()
    assert any(line.startswith(f"squeue {where}-h") for line in lines)
    assert any(line.startswith(f"scancel {where}15786755_0") for line in lines)


def test_jobs_without_a_number_are_not_sent_twice(commands, sweep):
    called = commands(sbatch="echo queued, thank you")
    first = sweep()
    assert first.status == 2
    assert "sbatch printed no job number: 'queued, thank you'" in first.err
    assert "scancel --name=ctkd-study" in first.err
    again = sweep()
    assert "0 runs were sent" in again.out
    assert "3 have jobs whose numbers are not known: --cancel clears them" in again.out
    assert sum(line.startswith("sbatch") for line in called()) == 1
    assert "its job number is not known" in sweep("--status").out
    assert sweep("--cancel").status == 0
    commands(sbatch="echo 4")
    assert "3 runs were sent to SLURM" in sweep().out


def test_lines_of_squeue_that_mean_nothing_here(commands, sweep, sent):
    commands(sbatch="echo 5", squeue="echo '*** maintenance on Monday'; echo '5_0|RUNNING|n1|None'")
    sweep()
    shown = sweep("--status")
    assert shown.status == 0
    assert sent().states()["kd-seed0"] == "running"


def test_a_squeue_that_prints_nothing_readable_is_an_error_and_sends_nothing(commands, sweep):
    called = commands(sbatch="echo 5", squeue="echo '*** maintenance'")
    sweep()
    for flags in (("--status",), ()):
        result = sweep(*flags)
        assert result.status == 2
        assert "squeue printed lines that cannot be read: '*** maintenance'" in result.err
    assert sum(line.startswith("sbatch") for line in called()) == 1


def test_a_sweep_is_split_into_arrays_that_the_cluster_takes(commands, sweep, sent, tmp_path):
    number = tmp_path / "number"
    script = f"echo x >> {number}; grep -- --array= $1 >> {tmp_path}/arrays; wc -l < {number}"
    commands(sbatch=script, scontrol="echo 'MaxArraySize            = 2'")
    assert sweep().status == 0
    assert sent().jobs() == {"kd-seed0": "1_0", "kd-seed1": "1_1", "kd-seed2": "2"}
    assert (tmp_path / "arrays").read_text().split() == ["#SBATCH", "--array=0-1%2"]


def test_what_was_sent_before_a_refusal_is_kept(commands, sweep, sent, tmp_path):
    refusal = (
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
    )
    refuse = f"{{ printf '{refusal}' >&2; exit 1; }}"
    script = f"test -e {tmp_path}/one && {refuse}; touch {tmp_path}/one; echo 5"
    commands(sbatch=script, scontrol="echo 'MaxArraySize = 2'")
    result = sweep()
    assert result.status == 2
    assert "sbatch refused the sweep (2 runs were sent before)" in result.err
    assert "the cluster limits how many jobs may wait: send fewer cells" in result.err
    assert sent().jobs() == {"kd-seed0": "5_0", "kd-seed1": "5_1"}


def test_an_array_that_is_too_large_gets_advice(commands, sweep):
    commands(
        sbatch="echo 'sbatch: error: Batch job submission failed: Invalid job array specification'"
        " >&2; exit 1",
        scontrol="exit 1",
    )
    assert "larger than MaxArraySize of this cluster" in sweep().err


def test_a_preempted_job_is_not_sent_again_before_slurm_requeues_it(commands, sweep, sent):
    rows = "; ".join(f"echo '5_{k}|PREEMPTED|n1|None'" for k in range(3))
    called = commands(sbatch="echo 5", squeue=rows)
    sweep()
    assert set(sent().states().values()) == {"queued"}
    assert "0 runs were sent" in sweep().out
    assert sum(line.startswith("sbatch") for line in called()) == 1
    # What SLURM does not requeue, it forgets in the end.
    commands(squeue="echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert set(sent().states().values()) == {"killed"}


def test_the_ledger_of_an_earlier_version_is_read(commands, sweep, sent):
    commands(sbatch="echo 5")
    sweep()
    ledger = sent().folder.ledger.path
    lines = [json.loads(line) for line in ledger.read_text().splitlines() if line.strip()]
    assert all("slurm_cluster" not in line for line in lines)
