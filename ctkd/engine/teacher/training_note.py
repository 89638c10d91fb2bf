"""The note in the work directory of a run that trains its teacher, or waits for it.

The status of a sweep reads it: such a run has no epochs of its own yet.
"""

import contextlib
import json
import pathlib

from ctkd.results.read.schema import TEACHER_FILE


class TrainingNote:
    """The note of one run; it is removed at the end of the `with` block."""

    def __init__(self, workdir: pathlib.Path, teacher: pathlib.Path, epochs: int) -> None:
        """`workdir` is the run's folder, `teacher` that of the training of `epochs` epochs."""
        self._path = workdir / TEACHER_FILE
        self._known = {"folder": str(teacher.absolute()), "epochs": epochs}

    def __enter__(self) -> "TrainingNote":
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def write(self, phase: str) -> None:
        """Writes what the run does; a folder that cannot be written has no note."""
        with contextlib.suppress(OSError):
            self._path.write_text(json.dumps({"phase": phase, **self._known}), encoding="utf-8")
