"""Requests to stop: Ctrl-C and SIGTERM end a run at the next step, with its state saved.

Before a run is prepared they end the process at once; what comes while its teacher is judged takes
effect after the first step.
"""

import abc
import signal
import threading
from types import FrameType
from typing import Any, TypeVar

SIGNALS = (signal.SIGINT, signal.SIGTERM)
H = TypeVar("H", bound="_Handling")


class _Handling(abc.ABC):
    """Inside, `_handle` is called for a signal; afterwards what was called before."""

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

    A library that is just being imported may swallow the exception; `heed` then raises it again.
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


_LISTENING: list[StopRequests] = []


def request_stop() -> bool:
    """Asks the training loops of this process to save and stop; whether there is one."""
    for listener in _LISTENING:
        listener.requested = True
    return bool(_LISTENING)
