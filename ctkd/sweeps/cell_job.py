"""The job of a cell on SLURM, as plain values that submitit pickles. Imports no torch."""

import json
import os
import signal
import socket
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from ctkd.engine.interrupt import request_stop
from ctkd.errors import Interrupted, NonFiniteError, UserError
from ctkd.sweeps.shared_files import count_epochs, read_json, write_whole

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

TERM_PATIENCE = 60.0  # seconds between SIGTERM and the requeue or SIGKILL that follows


@dataclass(frozen=True)
class CellJob:
    """The run of a cell. Everything that a resume needs is in the work directory.

    Attributes:
        files, params, workdir: as on the command line.
        note: the file with the state of the run, for the commands that follow the sweep.
        processes: the number of processes; with more than one the run is distributed.
        grace: seconds between the signal of the cluster and the end of the job.
    """

    files: tuple[str, ...]
    params: tuple[str, ...]
    workdir: str
    note: str
    processes: int = 1
    grace: int = 90

    def __call__(self) -> dict[str, Any]:
        """Trains the run, or resumes it. Returns its summary."""
        with Preemption(self.grace) as preemption:  # before torch, which takes seconds to import
            self._write("running", epochs_before=count_epochs(Path(self.workdir)))
            try:
                summary = self._train(preemption)
            except Interrupted as error:
                self._write("interrupted", error=str(error))
                raise
            except (UserError, NonFiniteError) as error:
                self._write("failed", error=str(error))
                raise
            except Exception as error:
                message = "".join(traceback.format_exception_only(error)).strip()
                self._write("failed", error=message)
                raise
        self._write("finished")
        return summary

    def checkpoint(self) -> "DelayedSubmission":
        """The job that submitit submits after a preemption or a timeout: this job again."""
        from submitit.core.utils import DelayedSubmission

        self._write("requeued")
        return DelayedSubmission(self)

    def _train(self, preemption: "Preemption") -> dict[str, Any]:
        from ctkd.engine.job import Job, execute
        from ctkd.engine.output.console import Console

        if self.processes > 1:
            from submitit.helpers import TorchDistributedEnvironment

            environment = TorchDistributedEnvironment()
            environment.export(set_cuda_visible_devices=False, overwrite=True)
        try:
            return execute(Job(self.files, self.params, self.workdir), Console())
        except Interrupted:
            preemption.hand_over()
            raise

    def _write(self, state: str, **more: Any) -> None:
        """Writes the state to the note. Only the first process writes."""
        if _rank() != 0:
            return
        path = Path(self.note)
        now = time.time()
        note = {"started": now} if state == "running" else (read_json(path) or {})
        note |= {"state": state, "job": _job(), "node": _node(), "time": now, **more}
        write_whole(path, json.dumps(note) + "\n")


class Preemption:
    """Delays submitit's signal handler until the training loop has saved its state.

    submitit's handler calls `checkpoint`, requeues the job and ends the process at once, in the
    middle of a step. In this context a signal first stops the loop. submitit's handler runs when
    the state is saved, or after half of the grace without a save (then the latest checkpoint
    counts). Without a running loop there is nothing to save, and the handler runs at once.
    """

    def __init__(self, grace: int) -> None:
        """Installs nothing before `__enter__`."""
        self._patience = max(1.0, grace / 2)
        self._answer: Any = None
        self._asked: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> "Preemption":
        if "SUBMITIT_EXECUTOR" in os.environ and _rank() == 0:  # others end with rank 0
            self._answer = signal.signal(_number(), self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if self._answer is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(_number(), self._answer)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        first, self._asked = self._asked is None, (number, frame)
        if first and request_stop():
            signal.signal(signal.SIGALRM, lambda *_: self._answer(number, frame))
            signal.setitimer(signal.ITIMER_REAL, self._patience)
        else:
            self._answer(number, frame)

    def hand_over(self) -> None:
        """Runs submitit's handler if a signal came; it ends the process.

        Clusters announce some preemptions by SIGTERM and then send submitit's signal. So after a
        SIGTERM alone the process waits for that signal, or for its end.
        """
        if self._asked is None and "SUBMITIT_EXECUTOR" in os.environ:
            end = time.monotonic() + TERM_PATIENCE
            while time.monotonic() < end:  # the handler now acts at once: no loop runs
                time.sleep(0.2)
        if self._asked is not None:
            self._answer(*self._asked)


def _number() -> signal.Signals:
    """The signal that submitit's job environment handles."""
    return signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]


def _rank() -> int:
    return int(os.environ.get("SLURM_PROCID", 0)) if "SUBMITIT_EXECUTOR" in os.environ else 0


def _job() -> str | None:
    """The job's number in submitit's format; None outside a job."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return None
    from submitit import JobEnvironment

    return str(JobEnvironment().job_id)


def _node() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()
