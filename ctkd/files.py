"""Paths and texts as users write them, and files that are replaced as a whole."""

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
MARKS = {  # the longer ones first: the shorter ones begin like them
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def expand_user(path: str | os.PathLike[str], setting: str) -> str:
    """The path with a tilde at its start replaced by the home directory of its user.

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


def cache_folder() -> Path:
    """The folder of this user for what all runs share: CTKD_CACHE, by default ~/.cache/ctkd.

    Raises:
        ConfigError: the home directory is unknown.
    """
    given = os.environ.get("CTKD_CACHE")
    if given:
        return user_path(given, "the environment variable CTKD_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return user_path(base, "the folder for caches (set CTKD_CACHE)") / "ctkd"


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


class NotUTF8Error(ValueError):
    """A file that is not UTF-8 text; the message says what it is and what to do."""


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a user's file, with plain line ends and without byte-order marks.

    Raises:
        OSError: the file cannot be read.
        NotUTF8Error: it is not UTF-8.
    """
    return decoded(Path(path).read_bytes())


def decoded(content: bytes) -> str:
    """The text in the bytes of a file, see `read_text`. Raises NotUTF8Error."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotUTF8Error(not_utf8(error)) from error
    if "\0" in text:
        raise NotUTF8Error(_advice(content, 0))
    # A mark opens a line in mid-file where files were joined; an editor shows neither of them.
    text = text.removeprefix("\ufeff").replace("\n\ufeff", "\n")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def not_utf8(error: UnicodeDecodeError) -> str:
    """What is wrong with the bytes of a file, and what to do."""
    return _advice(error.object, error.start)


def _advice(content: bytes, position: int) -> str:
    """What bytes are that are not UTF-8, the first of them at `position`, and what to do."""
    for mark, name in MARKS.items():
        if content.startswith(mark):
            return f"it is {name} text, expected UTF-8: save it again as UTF-8"
    if b"\0" in content:  # in UTF-16 without a mark, every other byte of plain English
        position = content.index(0)
    line, byte = content.count(b"\n", 0, position) + 1, content[position]
    guess = "UTF-16 text, or no text" if byte == 0 else "perhaps Latin-1 or Windows-1252 text"
    return (
        f"line {line}: the byte 0x{byte:02X} is not UTF-8 ({guess}): save the file again as UTF-8"
    )


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
