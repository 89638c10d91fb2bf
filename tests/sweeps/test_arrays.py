"""Sweeps that are longer than the longest array that SLURM takes."""

import re

import pytest

from ctkd.sweeps.arrays import split

CONFIG = "Configuration data as of today\nMaxArraySize            = {size}\nMaxJobCount = 10000\n"
REFUSES = 'echo "sbatch: error: Batch job submission failed: {}" >&2; exit 1'
LONG = REFUSES.format("Invalid job array specification")
COUNT = 'echo >> "$D/sent"; echo "Submitted batch job $(wc -l < "$D/sent")0"'


def refuses_beyond(tasks):
    """A shell script of an sbatch that takes so many tasks in an array."""
    last = r"""last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$1")"""
    return [last, f'[ "${{last:--1}}" -ge {tasks} ] && {{ {LONG}; }}', COUNT]


def arrays(sweep):
    """The bounds and the limit of each array that was sent, with what it waits for."""
    found = {}
    for path in sweep.folder.jobs.glob("*_submission.sh"):
        text = path.read_text()
        bounds = re.search(r"--array=(\S+)", text)
        waits = re.search(r"--dependency=(\S+)", text)
        number = int(path.name.partition("_")[0])
        found[number] = (bounds and bounds[1].strip("'"), waits and waits[1])
    return dict(sorted(found.items()))


@pytest.mark.parametrize("count", [1, 7, 100])
@pytest.mark.parametrize("longest", [1, 3, 8])
@pytest.mark.parametrize("parallel", [None, 1, 2, 5, 50])
def test_arrays_hold_every_cell_once_and_no_more_run_than_allowed(count, longest, parallel):
    parts = split(count, longest, parallel)
    cells = [cell for part in parts for cell in range(part.start, part.stop)]
    assert cells == list(range(count))
    assert all(0 < part.stop - part.start <= longest for part in parts)
    assert all(part.after is None or part.after < index for index, part in enumerate(parts))
    if parallel is None:
        assert all(part.parallel is None and part.after is None for part in parts)
        return
    assert all(part.parallel >= 1 for part in parts)
    # Arrays that wait for one another make a lane, of which one runs at a time.
    assert sum(part.parallel for part in parts if part.after is None) <= parallel
    following = [part.after for part in parts if part.after is not None]
    assert len(following) == len(set(following))
    assert all(
        parts[part.after].parallel == part.parallel for part in parts if part.after is not None
    )


def test_a_sweep_is_split_as_slurms_configuration_says(study, site):
    site.answers("scontrol", CONFIG.format(size=3))
    site.runs("sbatch", *refuses_beyond(3))
    result, sweep = study(seeds=7)
    assert result.status == 0, result.err
    assert "7 runs were sent to SLURM in 3 arrays, since it limits the runs of one" in result.out
    assert list(sweep.jobs().values()) == ["10_0", "10_1", "20_0", "20_1", "30_0", "30_1", "30_2"]
    assert len(site.calls("sbatch")) == 3


def test_what_fits_is_one_array(study, site):
    site.answers("scontrol", CONFIG.format(size=3))
    site.runs("sbatch", *refuses_beyond(3))
    result, sweep = study(seeds=3)
    assert "3 runs were sent to SLURM: " in result.out
    assert list(sweep.jobs().values()) == ["10_0", "10_1", "10_2"]


def test_the_schedulers_limit_counts_as_well(study, site):
    parameters = "SchedulerParameters     = bf_interval=1,max_array_tasks=2\n"
    site.answers("scontrol", CONFIG.format(size=1001) + parameters)
    site.runs("sbatch", COUNT)
    assert len(arrays(study(seeds=4)[1])) == 2


def test_without_arrays_each_run_is_a_job(study, site):
    site.answers("scontrol", CONFIG.format(size=0))
    site.runs("sbatch", *refuses_beyond(0))
    _, sweep = study(seeds=2)
    assert list(sweep.jobs().values()) == ["10", "20"]


def test_where_scontrol_does_not_say_sbatch_is_asked(study, site):
    site.answers("scontrol", err="scontrol: error: not for users", status=1)
    site.runs("sbatch", *refuses_beyond(3))
    result, sweep = study(seeds=8)
    assert result.status == 0, result.err
    assert list(sweep.jobs().values()) == [
        f"{n}_{task}" for n in (10, 20, 30, 40) for task in (0, 1)
    ]
    assert len(site.calls("sbatch")) == 2 + 4  # of eight and of four tasks, refused


def test_an_array_that_is_refused_at_any_length_is_an_error(study, site):
    site.runs("sbatch", LONG)
    result, sweep = study(seeds=4)
    assert result.status == 2
    assert "Invalid job array specification" in result.err
    assert "MaxArraySize" in result.err
    assert sweep.jobs() == {}


def test_parallel_runs_are_shared_by_the_arrays(study, site):
    site.answers("scontrol", CONFIG.format(size=3))
    site.runs("sbatch", COUNT)
    _, sweep = study("--parallel=5", seeds=9)
    assert arrays(sweep) == {10: ("0-2%2", None), 20: ("0-2%2", None), 30: ("0-2%1", None)}


def test_arrays_wait_for_one_another_where_there_are_more_than_may_run(study, site):
    site.answers("scontrol", CONFIG.format(size=2))
    site.runs("sbatch", COUNT)
    _, sweep = study("--parallel=2", seeds=6, resources={"other": {"dependency": "after:3"}})
    assert arrays(sweep) == {
        10: ("0-1%1", "after:3"),
        20: ("0-1%1", "after:3"),
        30: ("0-1%1", "after:3,afterany:10"),
    }


def test_a_limit_that_is_met_halfway_leaves_what_was_sent(study, site):
    site.answers("scontrol", CONFIG.format(size=2))
    limit = 'n=$(wc -l < "$D/sent" || echo 0); [ "$n" -ge 2 ] && {{ {}; }}'
    site.runs("sbatch", limit.format(REFUSES.format("Job violates accounting/QOS policy")), COUNT)
    result, sweep = study(seeds=6)
    assert result.status == 2
    assert "Send fewer runs at a time" in result.err
    assert result.err.endswith("4 of 6 runs were sent, the others were not.\n")
    assert list(sweep.jobs().values()) == ["10_0", "10_1", "20_0", "20_1"]
    site.runs("sbatch", 'echo "Submitted batch job 90"')
    site.runs("squeue", 'echo "${8}_[0-1]|PENDING||N/A|x"', 'echo "10_[0-1]|PENDING||N/A|x"',
              'echo "20_[0-1]|PENDING||N/A|x"')  # fmt: skip
    again, _ = study(seeds=6)
    assert "2 runs were sent to SLURM; 4 are finished, waiting or running" in again.out
    assert list(sweep.jobs().values())[4:] == ["90_0", "90_1"]
