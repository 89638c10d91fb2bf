"""Requests to stop: Ctrl-C and SIGTERM end a run at the next step, with its state saved."""

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequests:
    """Inside, a signal only sets `requested`; a second one ends the process at once."""

    def __init__(self) -> None:
        self.requested = False
        self._signalled = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequests":
        if threading.current_thread() is threading.main_thread():  # only it may set handlers
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._request)
        _LISTENING.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _LISTENING.remove(self)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self.requested = self._signalled = True


_LISTENING: list[StopRequests] = []


def request_stop() -> bool:
    """Asks the training loops of this process to save and stop; whether there is one."""
    for listener in _LISTENING:
        listener.requested = True
    return bool(_LISTENING)
