"""The format of a file of weights, found from its contents, and its safe reading.

A pickle can run any code while it is read. PyTorch's restricted reader (`weights_only=True`)
rebuilds tensors and plain containers only. `argparse.Namespace`, in which RepDistiller keeps a
run's options, is harmless and also allowed. A file that needs more is refused. A safetensors file
contains tensors and texts only.
"""

import argparse
import io
import pathlib
import re
import zipfile
from typing import IO, Any

import torch

from ctkd.errors import DataError

HEAD = 512  # bytes that show the format: a tar file has its mark at byte 257
# `torch.save` before PyTorch 1.6: a pickle of protocol 2 that starts with this number. The safe
# reader reads protocols 2 and 3.
OLD_CHECKPOINT = re.compile(rb"\x80[\x02\x03]\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19")
NEW_PICKLE = re.compile(rb"\x80[\x04\x05]")
CONVERT = "save the weights as PyTorch does: torch.save(state_dict, path)"
UNPACK = "unpack it, and give the path of the file of weights"
# Files of other formats: their first bytes, the offset of these, what they are, what to do.
MAGIC = (
    (
        b"version https://git-lfs",
        0,
        "is a Git LFS pointer, not the file itself: run `git lfs pull`",
    ),
    (b"\x89HDF\r\n\x1a\n", 0, f"is an HDF5 file, as Keras writes them: {CONVERT}"),
    (b"\x93NUMPY", 0, f"is a single NumPy array: {CONVERT}"),
    (b"TFL3", 4, f"is a TensorFlow Lite model: {CONVERT}"),
    (b"GGUF", 0, f"is a GGUF file of llama.cpp: {CONVERT}"),
    (b"\x1f\x8b", 0, "is compressed with gzip, or a damaged archive: unpack it with gunzip"),
    (b"BZh", 0, "is compressed with bzip2, or a damaged archive: unpack it with bunzip2"),
    (b"\xfd7zXZ", 0, "is compressed with xz, or a damaged archive: unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", 0, "is compressed with Zstandard: unpack it with unzstd"),
    (b"7z\xbc\xaf\x27\x1c", 0, f"is a 7-Zip archive: {UNPACK}"),
    (b"Rar!", 0, f"is a RAR archive: {UNPACK}"),
)


def read(path: pathlib.Path) -> Any:
    """The contents of a file from `torch.save` or safetensors, tensors on the CPU.

    Raises:
        DataError: the file is not a checkpoint, is damaged, or cannot be read without running code.
    """
    with path.open("rb") as file:
        return read_open(file, str(path), path)


def read_open(file: IO[bytes], shown: str, path: pathlib.Path | None = None) -> Any:
    """The contents of an open, seekable file; `shown` is its name in errors.

    With its `path` torch reads large files faster than through the file object.
    """
    head = head_of(file)
    try:
        if is_safetensors(head):
            return _read_safetensors(file)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path or file, map_location="cpu", weights_only=True)
    # Arbitrary bytes can make a pickle reader raise nearly any error, even KeyError.
    except Exception as error:
        raise DataError(f"{shown} {_fault(file, shown, error)}") from error


def head_of(file: IO[bytes]) -> bytes:
    """The first bytes of an open file; the file is then at its start again."""
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    return head


def _read_safetensors(file: IO[bytes]) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    return load(file.read())


def looks_like_weights(head: bytes) -> bool:
    """Whether a file with these first `HEAD` bytes can be read here."""
    return is_safetensors(head) or is_checkpoint(head)


def is_safetensors(head: bytes) -> bool:
    """Whether the file is a safetensors file: a length of 8 bytes, then a JSON header."""
    length = int.from_bytes(head[:8], "little")
    return 2 <= length <= 100_000_000 and head[8:9] == b"{"


def is_checkpoint(head: bytes) -> bool:
    """Whether `torch.save` wrote the file: a zip file with data.pkl first, or the older pickle."""
    if OLD_CHECKPOINT.match(head):
        return True
    name_length = int.from_bytes(head[26:28], "little")
    return head.startswith(b"PK\x03\x04") and head[30 : 30 + name_length].endswith(b"/data.pkl")


def zip_members(file: IO[bytes]) -> list[str] | None:
    """The names in a zip file that is an archive of files; None for any other format.

    PyTorch's checkpoints, TorchScript, torch.export and NumPy's .npz are zip files as well.
    """
    file.seek(0)
    if file.read(2) != b"PK" or not zipfile.is_zipfile(file):
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return None
    return None if _zip_format(names) else names


def _zip_format(names: list[str]) -> str | None:
    """The format of a zip file with these names; None for an archive of files."""
    inner = {name.partition("/")[2] for name in names}
    if {"constants.pkl", "data.pkl"} <= inner:
        return "TorchScript"
    if "archive_format" in inner:
        return "torch.export"
    if "data.pkl" in inner and ("version" in inner or "byteorder" in inner):
        return "checkpoint"
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy"
    return "Keras" if "model.weights.h5" in names else None


def _fault(file: IO[bytes], shown: str, error: Exception) -> str:
    """What is wrong with a file that could not be read, and what to do."""
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return (
            f"contains an object of {refused[1]}, and is not read, because unpickling could run "
            "any code. If you trust the file, load it where it was written, and save only the "
            "weights: torch.save(model.state_dict(), path)"
        )
    head, size = head_of(file), file.seek(0, io.SEEK_END)
    if not head:
        return "is empty (0 bytes): copy or download it again"
    known = _known_format(file, head, shown)
    if known is not None:
        return known
    if _is_cut(file, head, error):
        return f"is cut short ({size} bytes): copy or download it again"
    return (
        f"is not a checkpoint, or a damaged one ({type(error).__name__}): "
        "expected what torch.save or safetensors writes"
    )


def _known_format(file: IO[bytes], head: bytes, shown: str) -> str | None:
    """What a file of another format is, and what to do."""
    for start, offset, text in MAGIC:
        if head[offset:].startswith(start):
            return text
    if head.lstrip()[:1] == b"<":
        return "is a web page, not a checkpoint: the address shows a page instead of the file"
    if head.lstrip()[:1] in (b"{", b"["):
        return (
            "is a JSON text, not a checkpoint: perhaps an index of several files, or a server's "
            "error message; give the file that contains the tensors"
        )
    if shown.lower().endswith(".onnx") or (head[:1] == b"\x08" and b"pytorch" in head[:32]):
        return "is an ONNX model: give the PyTorch checkpoint that it was exported from"
    if head.startswith(b"PK") and zipfile.is_zipfile(file):
        return _zip_fault(file)
    if NEW_PICKLE.match(head):
        return (
            f"is a pickle of protocol {head[1]}, which the safe reader does not know. If you trust "
            "it, save it again as PyTorch does: torch.save(state_dict, path)"
        )
    return f"is an archive: {UNPACK}" if head[257:262] == b"ustar" else None


def _zip_fault(file: IO[bytes]) -> str | None:
    with zipfile.ZipFile(file) as archive:
        found = _zip_format(archive.namelist())
    faults = {
        "TorchScript": "is a TorchScript program: save only its weights, "
        "torch.save(torch.jit.load(path).state_dict(), 'weights.pt')",
        "torch.export": "is a program of torch.export: save only its weights, "
        "torch.save(torch.export.load(path).state_dict, 'weights.pt')",
        "NumPy": "is NumPy's .npz: save the arrays as tensors under the network's names, "
        "torch.save({name: torch.from_numpy(a) for name, a in numpy.load(path).items()}, "
        "'weights.pt')",
        "Keras": f"is a Keras model: {CONVERT}",
        None: f"is an archive: {UNPACK}",
    }
    return faults.get(found)


def _is_cut(file: IO[bytes], head: bytes, error: Exception) -> bool:
    """Whether the checkpoint is cut short."""
    if head.startswith(b"PK"):
        return not zipfile.is_zipfile(file)
    if is_safetensors(head):
        return "incomplete" in str(error).lower() or "invalid header length" in str(error).lower()
    ended = isinstance(error, EOFError) or "unexpected EOF" in str(error)
    return head.startswith(b"\x80") and ended
