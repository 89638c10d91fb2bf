"""Checkpoints: written atomically, with a checksum, and never unpickled unsafely."""

import hashlib
import io
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import torch

from ctkd.errors import WorkdirError
from ctkd.files import replacing

_NAME = re.compile(r"step-(\d{10})-([0-9a-f]{16})\.pt")
FORMAT = 1  # of a checkpoint's format; another number is refused


def write_atomically(path: pathlib.Path, write: Callable[[BinaryIO], object]) -> None:
    """Replaces `path` by the file that `write` fills, completely or not at all.

    Raises:
        WorkdirError: the disk is full or the folder not writable; the old file is unchanged.
    """
    try:
        with replacing(path) as part, open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY)  # the rename itself must also reach the disk
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise WorkdirError(
            f"cannot write {path}: {error.strerror}; the old file is unchanged"
        ) from error


def write_text(path: pathlib.Path, text: str) -> None:
    """`write_atomically` for a text."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_tensors(path: pathlib.Path, state: dict[str, Any]) -> None:
    """`write_atomically` for tensors, readable by `torch.load(weights_only=True)`."""
    buffer = io.BytesIO()  # torch.save reports a full disk as a RuntimeError
    torch.save(state, buffer)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


class Checkpoints:
    """The newest few checkpoints of a run; the checksum of a file's bytes is in its name."""

    def __init__(self, folder: pathlib.Path, keep: int, say: Callable[[str], None]) -> None:
        """`say` prints one sentence for each file that is skipped."""
        self.folder, self.keep, self._say = folder, keep, say
        self._unusable: set[pathlib.Path] = set()

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Writes `state` (tensors and plain values), and removes all but the newest checkpoints.

        Raises:
            WorkdirError: it cannot be written; the previous checkpoint is unchanged.
        """
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state}, buffer)
        data = buffer.getbuffer()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkdirError(f"cannot make {self.folder}: {error.strerror}") from error
        name = f"step-{step:010d}-{_digest(data)}.pt"
        write_atomically(self.folder / name, lambda file: file.write(data))
        # Skipped files stay, and must not cause the removal of good ones.
        good = [path for path in self._files() if path not in self._unusable]
        for old in [path for path in good if _NAME.fullmatch(path.name)][self.keep :]:
            old.unlink(missing_ok=True)

    def latest(self, identity: str) -> dict[str, Any] | None:
        """The newest complete checkpoint of the run `identity`; None if there is no file.

        Damaged and foreign files are skipped, each with a message.

        Raises:
            WorkdirError: there are files, but none that can be used.
        """
        files = self._files()
        for path in files:
            try:
                return _read(path, identity)
            except WorkdirError as error:
                self._unusable.add(path)
                self._say(f"{error}: skipped")
        if files:
            raise WorkdirError(
                f"no usable checkpoint in {self.folder}: restore a good one, or begin again with "
                "--fresh"
            )
        return None

    def _files(self) -> list[pathlib.Path]:
        """All files of the folder that end in .pt, newest step first."""
        if not self.folder.is_dir():
            return []
        files = [path for path in self.folder.glob("*.pt") if not path.name.startswith(".")]
        steps = {path: int(m[1]) if (m := _NAME.fullmatch(path.name)) else -1 for path in files}
        return sorted(files, key=lambda path: (steps[path], path.name), reverse=True)


def _read(path: pathlib.Path, identity: str) -> dict[str, Any]:
    match = _NAME.fullmatch(path.name)
    if not match:
        raise WorkdirError(f"{path} is not a checkpoint of ctkd")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WorkdirError(f"{path} cannot be read ({error.strerror})") from error
    if _digest(data) != match[2]:
        raise WorkdirError(f"{path} is truncated or damaged (its checksum differs)")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # Foreign bytes make a pickle reader raise nearly any error.
    except Exception as error:
        raise WorkdirError(f"{path} cannot be loaded safely") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise WorkdirError(f"{path} is of another version of ctkd")
    if state.get("identity") != identity:
        raise WorkdirError(f"{path} belongs to another run")
    return state


def _digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
