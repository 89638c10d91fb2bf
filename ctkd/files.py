"""Paths as users write them, and files that are replaced as a whole."""

import contextlib
import errno
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from ctkd.errors import ConfigError

LEFTOVER = re.compile(r"\..+\.\d+\.\d+\.tmp")  # of a process that was killed while it wrote
NOT_PERMITTED = (errno.EACCES, errno.EPERM, errno.EROFS)  # files of another user, read-only disks


def expand_user(path: str | os.PathLike[str], setting: str) -> str:
    """The path with `~` or `~user` at its start replaced by that user's home directory.

    Args:
        path: or a URL, which stays as it is.
        setting: the setting or flag that holds the path, for the message.

    Raises:
        ConfigError: there is no such user, or the home directory is unknown. The path as it is
            would name a folder `~` in the working directory.
    """
    given = os.fspath(path)
    expanded = os.path.expanduser(given)
    if not expanded.startswith("~"):
        return expanded
    user = given.partition("/")[0][1:]
    reason = "the home directory is unknown: HOME is not set, and this user has no account here"
    if user:
        reason = f"there is no user {user!r} on this machine"
    subject = f"{setting} = {given!r}" if "." in setting else f"{setting} {given!r}"
    raise ConfigError(
        f"{subject}: {reason}; give the whole path, or './{given}' for a file or "
        f"folder with the name {given.partition('/')[0]!r}"
    )


def user_path(path: str | os.PathLike[str], setting: str) -> Path:
    """`expand_user`, as a Path; of './~name' an absolute one, since a Path drops its './'."""
    expanded = Path(expand_user(path, setting))
    return expanded.absolute() if str(expanded).startswith("~") else expanded


def owner_of(path: Path) -> str:
    """The owner of a path, or of the folder above that exists, in words for a message.

    Empty if it belongs to this user.
    """
    found = next((p for p in (path, *path.absolute().parents) if os.path.lexists(p)), path)
    try:
        if found.lstat().st_uid == os.geteuid():
            return ""
        return f" ({found} belongs to {found.owner()})"
    except (OSError, KeyError):  # KeyError: the owner has no account on this machine
        return f" ({found} belongs to another user)"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file in the same folder, to be written; at the end it replaces `path`.

    After an error `path` is unchanged, and the temporary file is gone.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
