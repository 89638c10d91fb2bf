"""Requests to stop: after Ctrl-C or SIGTERM a run saves its state and ends before its next step.

Before a run is prepared, a signal ends the process immediately. A signal that comes while the
teacher is evaluated takes effect before the first step.
"""

import abc
import signal
import threading
from collections.abc import Iterator
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

    A library that is being imported may swallow the exception; `raise_if_signalled` then raises it
    again.
    """

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        raise KeyboardInterrupt

    def raise_if_signalled(self) -> None:
        """Raises KeyboardInterrupt if a signal came."""
        if self._signalled:
            raise KeyboardInterrupt


class StopRequests(_Handling):
    """Inside, a signal only sets `requested`; a second one ends the process immediately."""

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

    def until_stopped(self, batches: Iterator[T]) -> Iterator[T]:
        """The batches; they end early where a stop is requested and no batch comes."""
        while True:
            try:
                batch = next(batches)
            except (StopIteration, StopWaiting):
                return
            yield batch


_LISTENING: list[StopRequests] = []


def request_stop() -> bool:
    """Asks the training loops of this process to save and stop; whether there is one."""
    for listener in _LISTENING:
        listener.requested = True
    return bool(_LISTENING)
