"""Standard output and standard error that cannot end a run.

A terminal may know only ASCII or Latin-1, a disk may be full, a pipe may be closed. A run of three
days must not stop for that: characters are replaced, or a line is lost, and the run goes on.

Nothing here imports torch: the first messages come before that.
"""

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from ctkd.errors import OutputError

HANDLER = "ctkd.spelled"  # the name of `spelled` among the error handlers of Python's codecs
SPELLED = {
    **{"λ": "lambda", "τ": "tau", "α": "alpha", "β": "beta", "γ": "gamma", "ρ": "rho"},
    **{"Δ": "change", "±": "+-", "×": "x", "−": "-", "–": "-", "—": "-", "→": "->", "…": "..."},
    **{"≥": ">=", "≤": "<=", "·": "*", "²": "^2", "│": "|", "┃": "|", "─": "-", "━": "-"},
}


def spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replaces characters that an encoding lacks: λ by "lambda", unknown ones by an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if character in SPELLED:
        return SPELLED[character], error.start + 1
    error.end = error.start + 1
    return codecs.backslashreplace_errors(error)


codecs.register_error(HANDLER, spelled)


class SafeStream:
    """A text stream whose `write` and `flush` never fail; all else is the stream's own.

    Attributes:
        fault: the first failure, or None.
    """

    def __init__(self, stream: Any) -> None:
        """`stream` is None where Python found its file descriptor closed."""
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self._stream = stream
        self.fault: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text as far as the encoding and the device allow."""
        encoding = getattr(self._stream, "encoding", None)
        try:
            if encoding is not None and not text.isascii():
                # Standard error would write \u03bb for a λ, standard output would fail.
                self._stream.write(text.encode(encoding, HANDLER).decode(encoding))
            else:
                self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self._note(error)
        return len(text)

    def flush(self) -> None:
        """Flushes; the next `write` tries again what a full disk refused."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._note(error)

    def settle(self) -> None:
        """Flushes for the last time: what cannot be written goes nowhere.

        Otherwise Python tries it again when it exits, and ends with status 120.
        """
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._note(error)
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
                self._stream.flush()

    def _note(self, error: OSError | ValueError) -> None:
        fault = error if isinstance(error, OSError) else OSError(None, str(error))
        self.fault = self.fault or fault


@contextlib.contextmanager
def safe_output() -> Iterator[None]:
    """Inside, `sys.stdout` and `sys.stderr` are SafeStreams; nested uses change nothing."""
    if isinstance(sys.stdout, SafeStream) and isinstance(sys.stderr, SafeStream):
        yield
        return
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    streams = [s if isinstance(s, SafeStream) else SafeStream(s) for s in before]
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams:
            stream.settle()
        sys.stdout, sys.stderr = before


@contextlib.contextmanager
def passing_line(text: str) -> Iterator[None]:
    """Inside, a terminal shows the text; afterwards the line is empty again. A log has none."""
    shown = sys.stdout.isatty()
    if shown:
        sys.stdout.write(text)
        sys.stdout.flush()
    try:
        yield
    finally:
        if shown:
            sys.stdout.write("\r" + " " * len(text) + "\r")
            sys.stdout.flush()


def output_fault() -> OSError | None:
    """Why standard output could not be written, the first time; None where all was written."""
    stream = getattr(sys.stdout, "rich_proxied_file", sys.stdout)  # under a live view
    return stream.fault if isinstance(stream, SafeStream) else None


def check_output() -> None:
    """For commands whose product is standard output.

    Raises:
        OutputError: some of it was lost. A closed pipe is not an error: `head` has read enough.
    """
    sys.stdout.flush()
    fault = output_fault()
    if fault is not None and not isinstance(fault, BrokenPipeError):
        raise OutputError(
            f"standard output cannot be written ({fault.strerror}): what was printed is not whole; "
            "write it to another file or disk"
        )


def _open_closed_descriptors() -> None:
    """Points closed standard descriptors to nowhere.

    Otherwise the next file that is opened, a checkpoint perhaps, gets the number 1 or 2, and all
    that a library prints goes into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
