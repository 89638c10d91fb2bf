"""The syntax of a source of weights: `FILE[#sha256=CHECKSUM][::NAME]...`.

Each `::NAME` goes one level deeper. In an archive the first name is a member. In a checkpoint a
name is a part, such as `teacher`:

    /w/resnet56.pth
    /w/cifar_teachers.tar::resnet56_vanilla/ckpt_epoch_240.pth
    /w/kd_run.pth::teacher
"""

import os
import re
from dataclasses import dataclass, replace

from ctkd.errors import DataError

CHECKSUM_MARK = "#sha256="
NAME_MARK = "::"
# The host of a URL comes before the first name: an IPv6 address contains "::", too.
HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")


@dataclass(frozen=True)
class Source:
    """A source of weights, in its parts.

    Attributes:
        file: a path or a URL.
        checksum: the sha256 that the file must have, 64 lower-case hexadecimal digits, or None.
        names: the names after the file, from the outside in.
        setting: the user's setting, such as "teacher_weights" or "--checkpoint"; "" if unknown.
    """

    file: str
    checksum: str | None = None
    names: tuple[str, ...] = ()
    setting: str = ""

    def __str__(self) -> str:
        mark = "" if self.checksum is None else CHECKSUM_MARK + self.checksum
        return NAME_MARK.join((self.file + mark, *self.names))

    def setting_with(self, *names: str) -> str:
        """The setting with these names after the file, for the user to copy."""
        return spelled(self.setting, str(replace(self, names=names)))


def spelled(setting: str, value: str) -> str:
    """Such as "teacher_weights = 'FILE'", "--checkpoint='FILE'", or "'FILE'"."""
    if not setting:
        return repr(value)
    return f"{setting}={value!r}" if setting.startswith("--") else f"{setting} = {value!r}"


def parse_source(given: str | os.PathLike[str], setting: str = "") -> Source:
    """Reads a source from a text. An existing path is taken as it is, even with "::" in it.

    The checksum may also come after the names; it is the file's in both cases.

    Raises:
        DataError: the checksum is not a sha256, or a name is empty.
    """
    text = os.fspath(given)
    if os.path.exists(text):
        return Source(text, setting=setting)
    host = match[0] if (match := HOST.match(text)) else ""
    found = re.search(re.escape(CHECKSUM_MARK) + "([^:]*)", text)
    rest = text[len(host) :].replace(found[0], "", 1) if found else text[len(host) :]
    path, *names = rest.split(NAME_MARK)
    file, checksum = host + path, found[1].lower() if found else None
    if checksum is not None and not re.fullmatch("[0-9a-f]{64}", checksum):
        raise DataError(
            f"sha256 {found[1] if found else ''!r} of {file}: expected 64 hexadecimal digits"
        )
    if not all(names):
        raise DataError(f"{text}: a name is missing after {NAME_MARK!r}, as in FILE::teacher")
    return Source(file, checksum, tuple(names), setting)
