"""Rows of numbers on disk, shared by the processes of a machine, safe from damage and crashes.

A store is a folder with two files: `rows`, sparse, with row k at k · row bytes, and `sums`, the
checksums, 8 bytes each, 0 for a missing row. A row is written before its checksum, and both by
calls that report a full disk (a write through a memory map would end the process). A reader
compares checksums: a row that is damaged, half-written or being written counts as missing. Writers
need no lock, since all writers of a row write the same bits.
"""

import errno
import mmap
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctkd.errors import WorkdirError
from ctkd.files import NOT_PERMITTED

Array = NDArray[Any]
RESERVE = 2**30  # bytes that stay free on the disk, for other programs and checkpoints
CHECK_EVERY = 64  # writes between two checks of the free space
SUM_BYTES = 8
TABLE_BLOCK = 2**16  # rows per read, if all rows are read


class RowStore:
    """A store of `count` rows of `width` numbers; opening it makes missing files."""

    def __init__(
        self,
        folder: pathlib.Path,
        count: int,
        width: int,
        dtype: str,
        limit: int,
        say: Callable[[str], None],
    ) -> None:
        """Opens the store.

        Args:
            folder: an existing folder.
            count, width, dtype: of the rows, "float32" or "float16".
            limit: the largest size of the parent folder, with all its stores, in bytes.
            say: prints a message; called once for each kind of failure.

        Raises:
            WorkdirError: the files cannot be opened or made.
        """
        self.folder, self.count, self.width = folder, count, width
        self.dtype = np.dtype(dtype)
        self._limit, self._say = limit, say
        self.readable = self.writable = True
        self.damaged = 0  # rows with a wrong checksum
        self._writes = 0
        self._row_bytes = width * self.dtype.itemsize
        word = np.uint32 if self.dtype.itemsize == 4 else np.uint16
        self._word = np.dtype(word)
        self._weights = _mixed(np.arange(width, dtype=np.uint64)) | np.uint64(1)
        try:
            self._rows_file, self._rows = self._open("rows", self._row_bytes, self._word)
            self._sums_file, self._sums = self._open("sums", SUM_BYTES, np.dtype(np.uint64))
        except (OSError, ValueError) as error:
            raise WorkdirError(f"{folder} cannot be used: {error}") from error
        self._rows = self._rows.reshape(count, width)

    def _open(self, name: str, item: int, dtype: "np.dtype[Any]") -> tuple[int, Array]:
        """A file of `count` items at its full size, and its read-only memory map."""
        size = self.count * item
        descriptor = self._descriptor(self.folder / name)
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)  # fails for a file that is open for reading
        reserves = hasattr(os, "posix_fallocate")  # macOS lacks this call
        if name == "sums" and reserves and self.writable:
            # A hole in a file of a full tmpfs cannot even be read through a map.
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
        view = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
        return descriptor, np.frombuffer(view, dtype=dtype)

    def _descriptor(self, path: pathlib.Path) -> int:
        """The file, open for reading and writing, or only for reading if it is not writable."""
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno not in NOT_PERMITTED or not path.exists():
                raise
            self.writable = False
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def present(self, indices: Array) -> Array:
        """Whether each of the rows at the indices [B] was written; checksums are not compared."""
        found: Array = self._sums[indices] != 0 if self._usable() else np.zeros(len(indices), bool)
        return found

    def share(self) -> float:
        """The share of the rows that were written."""
        return np.count_nonzero(self._sums) / self.count if self._usable() else 0.0

    def some(self, size: int) -> Array:
        """The indices of up to `size` written rows, spread over the store."""
        if not self._usable():
            return np.zeros(0, np.int64)
        # The comparison copies: another process may write while NumPy counts, which is an error.
        indices = np.flatnonzero(self._sums != 0)
        spread: Array = indices[:: max(1, len(indices) // size)][:size]
        return spread

    def table(self) -> Array | None:
        """All rows [count, width] in float32, or None if a row cannot be used."""
        if not self._usable():
            return None
        table = np.empty((self.count, self.width), np.float32)
        for start in range(0, self.count, TABLE_BLOCK):
            indices = np.arange(start, min(start + TABLE_BLOCK, self.count))
            found, table[start : start + TABLE_BLOCK] = self.read(indices)
            if not found.all():
                return None
        return table

    def read(self, indices: Array) -> tuple[Array, Array]:
        """(found [B], rows [B, width] in float32); rows that were not found are undefined."""
        found = self.present(indices)
        rows = np.zeros((len(indices), self.width), self._word)
        if found.any():
            rows[found] = self._rows[indices[found]]
            expected = self._sums[indices[found]]
            good = self._checksums(indices[found], rows[found]) == expected
            if not good.all():
                self.damaged += int((~good).sum())
                self._say(
                    f"{self.folder}: damaged or half-written rows are computed again, not used"
                )
            found[found] = good
        return found, rows.view(self.dtype).astype(np.float32)

    def write(self, indices: Array, rows: Array) -> None:
        """Writes rows [B, width]. A failure is printed, and stops all writing."""
        self._writes += 1
        if not self.writable or (self._writes % CHECK_EVERY == 1 and not self._has_room()):
            return
        order = np.argsort(indices, kind="stable")
        indices = indices[order]
        words = np.ascontiguousarray(rows[order].astype(self.dtype)).view(self._word)
        sums = self._checksums(indices, words)
        # Neighboring rows are written together: a cache filled in order is written in blocks.
        starts = np.flatnonzero(np.diff(indices, prepend=indices[:1] - 2) != 1)
        try:
            for file, item, data in (
                (self._rows_file, self._row_bytes, words),
                (self._sums_file, SUM_BYTES, sums),
            ):
                for start, end in zip(starts, [*starts[1:], len(indices)], strict=True):
                    _write_all(file, data[start:end].tobytes(), int(indices[start]) * item)
        except OSError as error:
            self._stop_writing(error.strerror or str(error))

    def _usable(self) -> bool:
        """Whether the files still have their size: a read beyond a file's end is fatal."""
        if self.readable:
            files = ((self._rows_file, self._row_bytes), (self._sums_file, SUM_BYTES))
            if any(os.fstat(file).st_size < self.count * item for file, item in files):
                self.readable = self.writable = False
                self._say(f"{self.folder}: a file was cut short: the teacher's rows are computed")
        return self.readable

    def _has_room(self) -> bool:
        """Checks the limit and the disk; if one is full, stops writing with a message."""
        try:
            space = os.statvfs(self.folder)
            used = sum(path.stat().st_blocks * 512 for path in self.folder.parent.glob("*/*"))
        except OSError as error:
            self._stop_writing(error.strerror or str(error))
            return False
        if used >= self._limit:
            gigabytes = self._limit / 2**30
            self._stop_writing(
                f"{self.folder.parent} has reached Runtime.teacher_cache_gb = {gigabytes:g}: "
                "delete the folders of teachers that are not needed any more"
            )
        elif space.f_bavail * space.f_frsize < RESERVE:
            self._stop_writing(f"less than {RESERVE / 2**30:g} GB are free on the disk")
        return self.writable

    def _stop_writing(self, reason: str) -> None:
        self.writable = False
        self._say(f"{self.folder}: no more rows are kept there ({reason}); existing rows are used")

    def _checksums(self, indices: Array, words: Array) -> Array:
        """Checksums of integer rows [B, width]: Σ word · odd weight + mixed index mod 2⁶⁴, not 0.

        A change of one number always changes the sum, and a row at a wrong index never fits.
        """
        with np.errstate(over="ignore"):
            total = (words.astype(np.uint64) * self._weights).sum(1, dtype=np.uint64)
            total += _mixed(indices.astype(np.uint64) + np.uint64(self.width))
        never_zero: Array = np.maximum(total, np.uint64(1))
        return never_zero


def _mixed(values: Array) -> Array:
    """The splitmix64 scrambling of unsigned 64-bit integers (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        z = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Array = z ^ (z >> np.uint64(31))
    return mixed


def _write_all(file: int, data: bytes, offset: int) -> None:
    """Writes all of `data`. A disk that becomes full accepts a part first, then refuses."""
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
