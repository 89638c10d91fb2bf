"""Small sweeps of digits runs; a real SLURM if it is installed, otherwise programs of its names."""

import importlib.util
import json
import os
import pathlib
import shlex
import shutil
import tempfile
import time
from typing import NamedTuple

import pytest

from ctkd.sweeps import command
from ctkd.sweeps import slurm as slurm_programs
from ctkd.sweeps.cell_states import statuses
from ctkd.sweeps.check import check
from ctkd.sweeps.folder import SweepFolder, saved_sweep
from ctkd.sweeps.study import read_study

_spec = importlib.util.spec_from_file_location(
    "slurm_cluster", pathlib.Path(__file__).with_name("slurm_cluster.py")
)
slurm_cluster = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(slurm_cluster)


class Result(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def slurm():
    """A cluster of two nodes for the whole session; skips where there can be none.

    CTKD_TEST_CLUSTER=local leaves SLURM out although it is installed.
    """
    reason = slurm_cluster.why_not()
    if os.environ.get("CTKD_TEST_CLUSTER") == "local":
        reason = "CTKD_TEST_CLUSTER is local"
    if reason is not None:
        pytest.skip(f"left out: {reason}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ctkd-slurm-"))
    folder.chmod(0o755)  # munge insists; pytest's own folders are closed to others
    try:
        variables = slurm_cluster.start(folder)
        os.environ.update(variables)
        yield folder
        for name in variables:
            del os.environ[name]
    finally:
        slurm_cluster.stop(folder)
        shutil.rmtree(folder)


@pytest.fixture
def small(teacher_file):
    """Bindings that make a digits run a matter of seconds."""
    return [
        f"teacher_weights = '{teacher_file}'",
        "digits.train_images = 128",
        "Runtime.tensorboard = False",
        "Runtime.figures = False",
        "Instrument.points = 9",
    ]


@pytest.fixture
def sweep_file(tmp_path):
    """Writes a sweep's Gin file; values are written as Gin spells them."""

    def write(name="study", resources=(), **settings):
        lines = [f"Sweep.name = {name!r}"]
        lines += [f"Sweep.{key} = {value!r}" for key, value in settings.items()]
        lines += [f"Resources.{key} = {value!r}" for key, value in dict(resources).items()]
        path = tmp_path / f"{name}.gin"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def folder(tmp_path, sweep_file):
    """The directory of a sweep of three seeds, of which nothing was sent."""
    cells = {"base": ["gin/digits/kd.gin"], "params": ["epochs = 10"], "seeds": [0, 1, 2]}
    study = read_study(str(sweep_file(**cells)))
    made = SweepFolder(tmp_path / "sweep")
    with made.owned():
        made.claim(saved_sweep(study, made, check(study, supplies=False)), study.config)
    return made


@pytest.fixture
def known(monkeypatch):
    """The states of jobs that SLURM knows."""
    states = {}
    monkeypatch.setattr(
        slurm_programs, "states", lambda jobs: {j: states[j] for j in jobs if j in states}
    )
    return states


@pytest.fixture
def note(folder):
    """Writes the note of a cell."""

    def write(key="kd-seed0", **fields):
        path = folder.note(key)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"node": "n1", **fields}))

    return write


@pytest.fixture
def launch(tmp_path, monkeypatch, capsys):
    """Calls the command in this process, in tmp_path; gives a Result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        capsys.readouterr()
        status = command.main([str(argument) for argument in arguments])
        return Result(status, *capsys.readouterr())

    return call


class Sent:
    """A sweep that was sent: its directory, and the states of its runs."""

    def __init__(self, path):
        self.path, self.folder = path, SweepFolder(path)

    def states(self):
        return {status.cell.key: status.state for status in statuses(self.folder)}

    def jobs(self):
        return {key: entry.job for key, entry in self.folder.ledger.read().items()}

    def epochs(self, key):
        path = self.folder.workdir(key) / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    def note(self, key):
        path = self.folder.note(key)
        return json.loads(path.read_text()) if path.exists() else {}

    def log(self, key, kind="err"):
        return (self.folder.jobs / f"{self.jobs()[key]}_0_log.{kind}").read_text()

    def weights(self, key):
        return (self.folder.workdir(key) / "student_last.pt").read_bytes()

    def wait(self, condition, seconds=240):
        """Waits until the condition holds; returns its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = condition()
            if found:
                return found
            failed = [key for key in self.jobs() if self.note(key).get("state") == "failed"]
            assert not failed, self.note(failed[0])
            time.sleep(0.2)
        raise AssertionError(f"not within {seconds} s: {self.states()}")

    def process(self, key):
        """The process that trains a cell, or None."""
        self.wait(lambda: self.jobs().get(key))
        job = self.jobs()[key]
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            words = _words(entry / "cmdline")
            ours = "submitit.core._submit" in words and str(self.path) in " ".join(words)
            if ours and job in _jobs_of(entry):
                return int(entry.name)
        return None


def _jobs_of(entry):
    """The numbers that the job of a process may have."""
    values = dict(word.split("=", 1) for word in _words(entry / "environ") if "=" in word)
    array = (values.get("SLURM_ARRAY_JOB_ID", ""), values.get("SLURM_ARRAY_TASK_ID", ""))
    return {"_".join(array), values.get("SLURM_JOB_ID")}


def _words(path):
    try:
        return path.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


@pytest.fixture
def sent(tmp_path):
    """The sweep in a directory of tmp_path."""
    return lambda name="sweep": Sent(tmp_path / name)


@pytest.fixture
def commands():
    """The arguments of each command that a dry run printed."""

    def read(out):
        lines = out.strip().splitlines()
        start = " -m ctkd.main "
        starts = {line.partition(start)[0] for line in lines}
        assert starts <= {"python", "torchrun --standalone --nproc_per_node=2"}
        return [shlex.split(line.partition(start)[2]) for line in lines]

    return read


class Site:
    """Programs with the names of SLURM's, whose answers a test chooses; no cluster is needed."""

    def __init__(self, folder):
        self.folder = folder
        for program in ("sbatch", "srun", "squeue", "scancel", "scontrol"):
            self.answers(program)
        self.forgets()

    def runs(self, program, *lines):
        """Lines of a shell script, in which $D is a folder for its notes."""
        path = self.folder / program
        head = f'#!/bin/sh\nD="{self.folder}"\necho "$*" >> "$D/{program}.calls"\n'
        path.write_text(head + "\n".join(lines) + "\n")
        path.chmod(0o755)

    def answers(self, program, out="", err="", status=0):
        for kind, text in (("out", out), ("err", err)):
            text = text if isinstance(text, bytes) else text.encode()
            (self.folder / f"{program}.{kind}").write_bytes(text)
        self.runs(program, f'cat "$D/{program}.err" >&2; cat "$D/{program}.out"; exit {status}')

    def forgets(self):
        """No job is known any more."""
        for program in ("squeue", "scontrol"):
            self.answers(program, err="slurm_load_jobs error: Invalid job id specified", status=1)

    def calls(self, program):
        path = self.folder / f"{program}.calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A Site whose programs are found first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Site(folder)


@pytest.fixture
def study(launch, sweep_file, sent, site):
    """Sends a sweep of some seeds to the site; gives the Result, and the sweep."""

    def call(*flags, seeds=2, resources=()):
        path = sweep_file(
            base=["gin/digits/kd.gin"],
            params=["epochs = 10"],
            seeds=list(range(seeds)),
            resources=resources,
        )
        result = launch("--sweep", path, "--sweep_dir=sweep", "--cluster=slurm", *flags)
        return result, sent("sweep")

    return call
