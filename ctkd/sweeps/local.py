"""Runs the cells of a sweep on this machine, some at a time, each or each group in a process.

The launcher stays in the foreground until all runs have ended. Ctrl-C, SIGTERM and a closed
terminal end the runs with their states saved. The same command continues them.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

from ctkd.command_line import PACKAGE
from ctkd.cores import available_cores
from ctkd.errors import ConfigError, Interrupted
from ctkd.sweeps.cell_group import groups_of
from ctkd.sweeps.folder import SavedCell, SweepFolder
from ctkd.sweeps.shared_files import count_epochs, last_lines, read_json
from ctkd.sweeps.study_settings import Resources

NO_DEVICES = ("-1", "NoDevFiles")  # texts of CUDA, and of SLURM for a job without GPUs
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed
# The meaning of a run's exit status. A negative status is a signal: the run was killed.
STATES = {0: "finished", 130: "interrupted"}
Group = tuple[SavedCell, ...]  # the cells that one process trains


def devices() -> list[int]:
    """The GPUs that runs may use.

    Raises:
        ConfigError: CUDA_VISIBLE_DEVICES does not consist of numbers.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip()]
        if names and names[0] in NO_DEVICES:
            return []
        if not all(name.isdigit() for name in names):
            raise ConfigError(
                f"CUDA_VISIBLE_DEVICES = {visible}: the launcher gives each run its GPUs by their "
                "numbers; expected numbers such as 0,1 (nvidia-smi -L lists them)"
            )
        return [int(name) for name in names]
    import torch

    return list(range(torch.cuda.device_count()))


def capacity(resources: Resources) -> int:
    """The number of runs, or of groups of runs, that this machine can train at a time.

    Raises:
        ConfigError: it cannot train even one run.
    """
    if resources.nodes > 1:
        raise ConfigError(f"Resources.nodes = {resources.nodes}: this machine is one node")
    fits = max(1, available_cores() // (resources.cpus * resources.tasks))
    if resources.gpus:
        found = len(devices())
        if found < resources.gpus:
            raise ConfigError(
                f"Resources.gpus = {resources.gpus}, but this machine has {found}: --gpus=0 trains "
                "on its processor"
            )
        fits = found // resources.gpus
    return min(fits, resources.parallel or fits)


class LocalRuns:
    """The runs of some cells. They train inside the `with` block and end with it.

    A signal that stops the launcher stops the runs, with their states saved. A second one ends
    them at once.
    """

    def __init__(
        self, folder: SweepFolder, resources: Resources, cells: Sequence[SavedCell]
    ) -> None:
        """Starts nothing. Raises ConfigError if this machine cannot train a single run."""
        self._folder, self._resources, self._cells = folder, resources, cells
        self._parallel = capacity(self._resources)
        self._devices = self._dealt()
        self._pool = ThreadPoolExecutor(self._parallel)
        self._futures: list[Future[None]] = []
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._handlers: dict[signal.Signals, Any] = {}
        self._signals = 0  # how many signals came
        self._interrupted: list[str] = []  # the cells that the signals stopped

    def _dealt(self) -> "queue.SimpleQueue[str]":
        """A value of CUDA_VISIBLE_DEVICES for each of the parallel runs."""
        count, found = self._resources.gpus, devices() if self._resources.gpus else []
        dealt: queue.SimpleQueue[str] = queue.SimpleQueue()
        for index in range(self._parallel):
            dealt.put(",".join(map(str, found[index * count : (index + 1) * count])))
        return dealt

    def __enter__(self) -> "LocalRuns":
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                self._handlers[number] = signal.signal(number, self._stop)
        self._folder.trains_here = True
        for cell in self._cells:
            self._folder.note(cell.key).unlink(missing_ok=True)
            self._folder.ledger.add("sent", cell.key, "local")
        groups = groups_of(self._cells, self._resources.group)
        self._futures = [self._pool.submit(self._train, cells) for cells in groups]
        return self

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal. At SIGTERM a run saves its state; at a second one it ends at once."""
        running = list(self._processes.values())
        self._signals += 1
        with contextlib.suppress(OSError):  # the terminal may be closed; print is not reentrant
            os.write(2, f"\nstopping {len(running)} runs, which save their states\n".encode())
        for process in running:
            process.terminate()

    @property
    def stopped(self) -> bool:
        """Whether a signal came."""
        return self._signals > 0

    def ended(self) -> bool:
        """Whether all runs have ended. Raises the exception of a thread that failed."""
        done = [future for future in self._futures if future.done()]
        for future in done:
            future.result()
        return len(done) == len(self._futures)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raises Interrupted if a signal stopped the runs."""
        if kind is not None:
            self._stop(0, None)
        self._pool.shutdown()
        self._folder.trains_here = False
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if kind is None and self._signals:
            saved = "and their states are saved" if self._signals == 1 else "perhaps without saving"
            raise Interrupted(
                f"{len(self._interrupted)} runs were stopped, {saved}; the same command continues "
                "the sweep"
            )

    def _train(self, cells: Group) -> None:
        """Trains a group. A killed one starts again, up to `Resources.retries` times."""
        visible = self._devices.get()
        try:
            if self._signals:
                return
            status, retries = self._run_once(cells, visible), self._resources.retries
            while status < 0 and retries and not self._signals and (cells := self._going(cells)):
                retries -= 1
                for cell in cells:
                    self._folder.ledger.add("sent", cell.key, "local", again=True)
                status = self._run_once(cells, visible)
            for cell in self._going(cells):
                outcome = self._outcome(cells[0], status)
                if outcome["state"] == "interrupted":
                    self._interrupted.append(cell.key)
                self._folder.write_note(cell.key, **outcome)
        finally:
            self._devices.put(visible)

    def _going(self, cells: Group) -> Group:
        """The cells that had not ended when their process ended."""
        notes = [read_json(self._folder.note(cell.key)) or {} for cell in cells]
        pairs = zip(cells, notes, strict=True)
        return tuple(cell for cell, note in pairs if note.get("state") == "running")

    def _run_once(self, cells: Group, visible: str) -> int:
        """Runs a group until its process ends; returns the exit status."""
        key = cells[0].key
        log = self._folder.local_log(key)
        log.parent.mkdir(parents=True, exist_ok=True)
        for cell in cells:
            epochs, now = count_epochs(self._folder.workdir(cell.key)), time.time()
            self._folder.write_note(cell.key, state="running", started=now, epochs_before=epochs)
        with open(log, "ab") as output:
            process = subprocess.Popen(
                self._command(cells),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(visible, self._resources.cpus),
                start_new_session=True,  # Ctrl-C reaches only the launcher, which passes it on
            )
            self._processes[key] = process
            try:
                if self._signals:  # a signal came before `_stop` could see this process
                    process.terminate()
                return process.wait()
            finally:
                del self._processes[key]

    def _command(self, cells: Group) -> list[str]:
        """The command of a group; of one cell, the command that a user would give."""
        if len(cells) == 1:
            return _command(cells[0], self._folder.workdir(cells[0].key), self._resources.tasks)
        keys = [cell.key for cell in cells]
        return [sys.executable, "-m", "ctkd.sweeps.cell_group", str(self._folder.path), *keys]

    def _outcome(self, first: SavedCell, status: int) -> dict[str, Any]:
        """The state of a run whose process has ended, and its error; `first` has the log."""
        state = STATES.get(status, "killed" if status < 0 else "failed")
        if state != "finished" and self._signals:
            state = "interrupted"
        if state in ("finished", "interrupted"):
            return {"state": state}
        # The message of the run: all lines after "ctkd: ", otherwise the last line.
        lines = last_lines(self._folder.local_log(first.key)) or [""]
        start = max((i for i, line in enumerate(lines) if line.startswith("ctkd: ")), default=-1)
        return {"state": state, "error": "\n".join(lines[start:]).removeprefix("ctkd: ")}


def _command(cell: SavedCell, workdir: Path, tasks: int) -> list[str]:
    """The command of a cell's run, with several processes if `tasks` is above 1."""
    start = ["ctkd.main"]
    if tasks > 1:
        start = ["torch.distributed.run", "--standalone", f"--nproc_per_node={tasks}"]
        start += ["-m", "ctkd.main"]
    words = [f"--gin_file={file}" for file in cell.files]
    words += [f"--gin_param={param}" for param in cell.params]
    return [sys.executable, "-m", *start, *words, f"--workdir={workdir}"]


def _environment(visible: str, cpus: int) -> dict[str, str]:
    """The environment of a run: its GPUs, its threads, and the package of this clone."""
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "CUDA_VISIBLE_DEVICES": visible,
        "OMP_NUM_THREADS": str(cpus),
    }
