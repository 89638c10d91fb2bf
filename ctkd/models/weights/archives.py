"""Archives and folders of weights: lists their members, and reads one member in memory.

Nothing is written to the disk, and no path in an archive is used as a path: a member's name is only
compared with the name that the user gave. Links and devices in an archive are left out.
"""

import functools
import io
import lzma
import os
import pathlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from ctkd.errors import DataError
from ctkd.models.weights.formats import HEAD, head_of, looks_like_weights, zip_members
from ctkd.models.weights.source import Source

LARGEST_MEMBER = 8 * 2**30  # bytes that are read into memory; the archive states the size
LISTED = 20  # members in a message
SEARCHED = 2000  # files of a folder that are checked
# The members of PyTorch's own tar files, up to version 0.1.9.
OLD_CHECKPOINT = {"pickle", "storages", "tensors"}
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,  # a zip file's password is missing
)


class ChoiceError(DataError):
    """A file is complete, but the source does not name exactly one set of weights in it."""


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name, its size in bytes, and whether it looks like weights."""

    name: str
    size: int
    is_weights: bool


class Archive:
    """An open tar file (compressed or not) or zip file."""

    def __init__(self, file: tarfile.TarFile | zipfile.ZipFile) -> None:
        """Reads the list of members; this reads all of a compressed tar file."""
        # If a name occurs twice in a tar file, the last member replaced the first.
        found = self._tar(file) if isinstance(file, tarfile.TarFile) else self._zip(file)
        self._opens: dict[str, Callable[[], Any]] = {}
        self.members: dict[str, Member] = {}
        for name, size, opens in found:
            with opens() as opened:
                is_weights = looks_like_weights(opened.read(HEAD))
            plain = name.removeprefix("./")
            self.members[plain] = Member(plain, size, is_weights)
            self._opens[plain] = opens

    @staticmethod
    def _tar(file: tarfile.TarFile) -> Iterator[tuple[str, int, Callable[[], Any]]]:
        files = (info for info in file if info.isreg())
        return ((i.name, i.size, functools.partial(file.extractfile, i)) for i in files)

    @staticmethod
    def _zip(file: zipfile.ZipFile) -> Iterator[tuple[str, int, Callable[[], Any]]]:
        files = (info for info in file.infolist() if not info.is_dir())
        return ((i.filename, i.file_size, functools.partial(file.open, i)) for i in files)

    def read(self, member: Member) -> io.BytesIO:
        """The member's bytes. Raises ChoiceError if the member is too large for memory."""
        if member.size > LARGEST_MEMBER:
            raise ChoiceError(
                f"{member.name} has {member.size / 2**30:.1f} GiB: unpack the archive, and give "
                "the path of that file"
            )
        with self._opens[member.name]() as file:
            return io.BytesIO(file.read(member.size))


def member_of(path: pathlib.Path, source: Source) -> io.BytesIO | None:
    """The bytes of the member that `source` names; None if the file is not an archive.

    A name is a member's path in the archive, or its end if no other path has the same end.

    Raises:
        DataError: the archive is damaged, or the name is missing, or it fits no member or
            several; the message lists the members that look like weights.
    """
    with path.open("rb") as file:
        head = head_of(file)
        if not any(head) or looks_like_weights(head):
            return None
        try:
            opened = zipfile.ZipFile(file) if zip_members(file) is not None else _as_tar(file)
            if opened is None:
                return None
            with opened:
                archive = Archive(opened)
                return archive.read(_chosen(archive.members, source))
        except DAMAGE as error:
            raise DataError(
                f"{path} is a damaged archive, or one with a password ({error}): copy or download "
                "it again, or unpack it and give the path of the file of weights"
            ) from error


def _as_tar(file: IO[bytes]) -> tarfile.TarFile | None:
    file.seek(0)
    try:
        return tarfile.open(fileobj=file, mode="r:*")
    except tarfile.ReadError:
        return None


def _chosen(members: Mapping[str, Member], source: Source) -> Member:
    """The member that the source names. Raises ChoiceError if it is not exactly one."""
    if members.keys() >= OLD_CHECKPOINT:
        raise ChoiceError(
            f"{source.file} is a checkpoint of PyTorch before 0.1.10, a tar file. If you trust it, "
            "save it again: torch.save(torch.load(path, weights_only=False), 'weights.pt')"
        )
    if not source.names:
        raise ChoiceError(f"{source.file} is an archive. {_offer(members, source)}")
    name = source.names[0]
    wanted = name.strip("/").split("/")
    ends = [m for m in members.values() if m.name.split("/")[-len(wanted) :] == wanted]
    if name in members:
        return members[name]
    if len(ends) == 1:
        return ends[0]
    count = f"{len(ends)} members" if ends else "no member"
    what = f"{source.file} has {count} whose path ends in {name!r}"
    among = {member.name: member for member in ends} or members
    raise ChoiceError(f"{what}. {_offer(among, source)}")


def _offer(members: Mapping[str, Member], source: Source) -> str:
    """The members that look like weights, each as a setting to copy."""
    names = sorted(member.name for member in members.values() if member.is_weights)
    if not names:
        shown = ", ".join(sorted(members)[:LISTED]) or "no files"
        return f"None of its members looks like weights: it holds {shown}"
    lines = [source.setting_with(name, *source.names[1:]) for name in names[:LISTED]]
    more = [f"and {len(names) - LISTED} more"] if len(names) > LISTED else []
    return "\n  ".join(["Set the member that you want:", *lines, *more])


def folder_fault(folder: pathlib.Path, source: Source) -> str:
    """The message for a folder that was given instead of a file: its contents, and what to set."""
    inside = {entry.name for entry in folder.iterdir()}
    shown = f"the file of weights {folder} is a folder"
    if {"data.pkl", "version"} <= inside or {"data.pkl", "byteorder"} <= inside:
        return (
            f"{shown}: a checkpoint that was unpacked, as some browsers do with a zip file. "
            "Download it again without unpacking it"
        )
    if ".metadata" in inside and any(name.endswith(".distcp") for name in inside):
        return (
            f"{shown}: a checkpoint of torch.distributed.checkpoint. Make one file of it: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} weights.pt"
        )
    if "saved_model.pb" in inside:
        return f"{shown}: a model of TensorFlow. Give a PyTorch checkpoint"
    found = sorted(_weights_in(folder))
    if not found:
        return f"{shown}, and no file in it looks like weights"
    lines = [Source(str(path), setting=source.setting).setting_with() for path in found[:LISTED]]
    more = [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
    return "\n  ".join([f"{shown}. Give a file, for example:", *lines, *more])


def _weights_in(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Files that look like weights in a folder and its subfolders, among the first `SEARCHED`."""
    searched = 0
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            searched += 1
            if searched > SEARCHED:
                return
            path = pathlib.Path(root, name)
            try:
                with path.open("rb") as file:
                    if looks_like_weights(file.read(HEAD)):
                        yield path
            except OSError:
                continue
