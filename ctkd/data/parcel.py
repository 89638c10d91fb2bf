"""A batch on its way from a worker process to the run, in memory that /dev/shm does not limit."""

import io
import mmap
import os
import pickle
import tempfile
from multiprocessing import reduction
from typing import IO, Any

import torch
from torch import Tensor

ALIGNMENT = 64  # bytes: each tensor starts at a multiple of it, as torch's own memory does


class Parcel:
    """A batch in a file without a name. The system frees it when no process has it open.

    torch passes tensors between processes through files in /dev/shm. A container's /dev/shm has
    64 MiB by default. If it is full, the worker loses the batch, and the run waits for that batch
    forever. This file is also in memory, but not in /dev/shm.

    A worker makes the Parcel and sends it: a few hundred bytes. If the batch cannot be written, the
    constructor raises the error, and the worker can report it.
    """

    def __init__(self, batch: Any) -> None:
        """Writes a batch, which must be picklable; its tensors are copied once.

        Raises:
            OSError: there is no room for the file.
        """
        with _nameless_file() as file:
            head = io.BytesIO()
            _Packer(head, file).dump(batch)
            self._head = _append(file, head.getvalue()), head.tell()
            file.flush()
            self._file = reduction.DupFd(file.fileno())

    def open(self) -> Any:
        """The batch. Its tensors are the file's memory; nothing is copied. Call it once only.

        Raises:
            OSError, EOFError: the worker has ended.
        """
        return self._unpacked(self._received())

    def pin_memory(self) -> Any:
        """The batch, in page-locked memory. DataLoader's own thread calls this."""
        return self._unpacked(self._received().pin_memory())

    def _received(self) -> Tensor:
        """The file's bytes."""
        descriptor = self._file.detach()
        try:
            return torch.frombuffer(mmap.mmap(descriptor, 0), dtype=torch.uint8)
        finally:
            os.close(descriptor)

    def _unpacked(self, memory: Tensor) -> Any:
        start, size = self._head
        head = memory[start : start + size].numpy().tobytes()
        return _Unpacker(io.BytesIO(head), memory).load()


class _Packer(pickle.Pickler):
    """Writes tensors to a file, and pickles their offsets in it."""

    def __init__(self, head: IO[bytes], file: IO[bytes]) -> None:
        super().__init__(head, protocol=5)
        self._file = file

    def persistent_id(self, obj: Any) -> Any:
        """(offset, dtype, shape, strides) of a tensor; None for anything else."""
        if type(obj) is not Tensor:
            return None
        # Write the whole storage, so that the strides stay. Copy a part of a storage first.
        whole = obj.untyped_storage().nbytes() == obj.nbytes
        tensor = obj if whole else obj.clone()
        contents = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy()
        offset = _append(self._file, contents.data)
        return offset, tensor.dtype, tuple(tensor.shape), tensor.stride()


class _Unpacker(pickle.Unpickler):
    """Makes tensors of parts of the file's memory."""

    def __init__(self, head: IO[bytes], memory: Tensor) -> None:
        super().__init__(head)
        self._storage = memory.untyped_storage()

    def persistent_load(self, pid: Any) -> Any:
        """The tensor that `_Packer.persistent_id` describes."""
        offset, dtype, shape, strides = pid
        # Not a view of one tensor: views share a version, so for autograd a change of one tensor
        # of the batch would be a change of all.
        tensor = torch.empty(0, dtype=dtype)
        return tensor.set_(self._storage, offset // dtype.itemsize, shape, strides)


def _append(file: IO[bytes], contents: bytes | memoryview) -> int:
    """Writes at the next aligned offset of the file, and returns the offset."""
    file.write(bytes(-file.tell() % ALIGNMENT))
    offset = file.tell()
    file.write(contents)
    return offset


def _nameless_file() -> IO[bytes]:
    """A file in memory, or in the temporary folder if Python cannot make files in memory.

    Python cannot on macOS, nor if it was built with an old C library, as conda's Python is.
    """
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("ctkd-batch"), "w+b")
    return tempfile.TemporaryFile()
