"""Requests to stop: after Ctrl-C or SIGTERM a run saves its state and ends before its next step.

Before a run is prepared, a signal ends the process at once. A signal that comes while the teacher
is judged takes effect before the first step.
"""

import abc
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

from ctkd.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 5.0  # seconds that a stopping run still waits for a batch
H = TypeVar("H", bound="_Handling")
T = TypeVar("T")


class StopWaiting(Interrupted):
    """A stop is requested, and the batch that the run waits for does not come."""


class _Handling(abc.ABC):
    """Inside, `_handle` is called for a signal. Afterwards the earlier handlers are back."""

    def __init__(self) -> None:
        self._signalled = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self: H) -> H:
        if threading.current_thread() is threading.main_thread():  # only it may set handlers
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @abc.abstractmethod
    def _handle(self, number: int, frame: FrameType | None) -> None: ...


class EarlyInterrupts(_Handling):
    """Inside, a signal raises KeyboardInterrupt, and is remembered.

    A library that is being imported may swallow the exception; `heed` then raises it again.
    """

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        raise KeyboardInterrupt

    def heed(self) -> None:
        """Raises KeyboardInterrupt if a signal came."""
        if self._signalled:
            raise KeyboardInterrupt


class StopRequests(_Handling):
    """Inside, a signal only sets `requested`; a second one ends the process at once."""

    def __init__(self) -> None:
        super().__init__()
        self.requested = False

    def __enter__(self) -> "StopRequests":
        super().__enter__()
        _LISTENING.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _LISTENING.remove(self)
        super().__exit__(*exception)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self.requested = self._signalled = True

    def check(self, waited: float) -> None:
        """Raises StopWaiting if a stop is requested after so many seconds of waiting for a batch.

        A batch that comes within `PATIENCE` is still waited for: an evaluation can then end.
        """
        if self.requested and waited >= PATIENCE:
            raise StopWaiting

    def guarded(self, batches: Iterator[T], stop_if: Callable[[bool], None]) -> Iterator[T]:
        """The batches. `stop_if(requested)` is called before each, and raises where the run stops.

        It is called once for each batch on every rank, also if the batch of a rank does not come:
        so the ranks can decide together.
        """
        while not self.requested:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except StopWaiting:
                break
            stop_if(self.requested)
            yield batch
        stop_if(True)


_LISTENING: list[StopRequests] = []


def request_stop() -> bool:
    """Asks the training loops of this process to save and stop; whether there is one."""
    for listener in _LISTENING:
        listener.requested = True
    return bool(_LISTENING)
