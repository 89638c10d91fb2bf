"""Gin files: where they are found, what they include, and how their text is read."""

import difflib
import io
import pathlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ctkd.command_line import ROOT
from ctkd.errors import ConfigError
from ctkd.files import NotUTF8Error, expand_user, read_text
from ctkd.renamed import with_new_names

_INCLUDE = re.compile(r"""^(?P<start>\s*include\s+)(?P<quote>['"])(?P<name>.+?)(?P=quote)""", re.M)


@dataclass(frozen=True)
class GinFile:
    """A Gin file as Gin reads it: the paths of its includes are absolute.

    Attributes:
        warnings: about old names of parameters; `text` has the new ones.
        given: the stem of the file of the command line that is this file, or includes it.
    """

    path: pathlib.Path
    text: str
    warnings: tuple[str, ...] = ()
    given: str = ""

    def __str__(self) -> str:
        """The path, of the project's own files relative to the folder that holds `gin/`."""
        own = self.path.is_relative_to(ROOT / "gin")
        return str(self.path.relative_to(ROOT) if own else self.path)

    def open(self) -> io.StringIO:
        """A stream of the text, with the attribute `name` that Gin puts into its messages."""
        stream = io.StringIO(self.text)
        stream.name = str(self.path)
        return stream


def find(name: str, folders: Sequence[pathlib.Path] | None = None) -> pathlib.Path:
    """The Gin file `name`, searched for in `folders`, then below the project's root and its `gin/`.

    Args:
        folders: for a name in a file, the folder of that file; None for a name on the command line,
            which is searched for in the working directory.

    Raises:
        ConfigError: there is no such file.
    """
    folders = [pathlib.Path.cwd()] if folders is None else folders
    tried = [folder / name for folder in (*folders, ROOT, ROOT / "gin")]
    for path in tried:
        if path.is_file():
            return path.resolve()
    near = _nearest(name)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    looked = ", ".join(dict.fromkeys(str(path) for path in tried))
    raise ConfigError(f"no Gin file {name!r}{hint} (searched: {looked})")


def _nearest(name: str) -> list[str]:
    """The project's Gin files, at most three, whose own name and whose path are like `name`."""
    wanted = name.removesuffix(".gin")
    known = [path.relative_to(ROOT) for path in sorted((ROOT / "gin").rglob("*.gin"))]
    stems = difflib.get_close_matches(
        pathlib.PurePath(wanted).name, {path.stem for path in known}, cutoff=0.6
    )
    like = [str(path) for path in known if path.stem in stems]
    return difflib.get_close_matches(wanted + ".gin", like, cutoff=0.0)


def find_named(name: str, files: Sequence[GinFile], bindings: Sequence[str] = ()) -> pathlib.Path:
    """The Gin file that a setting names: next to the file, or the command, that has the setting.

    Args:
        files, bindings: the configuration that the setting comes from.

    Raises:
        ConfigError: there is no such file.
    """
    folders = [pathlib.Path.cwd()] if any(name in binding for binding in bindings) else []
    folders += [file.path.parent for file in reversed(files) if name in file.text]
    return find(expand_user(name, "the Gin file"), folders)


def read_with_includes(
    path: pathlib.Path, above: tuple[pathlib.Path, ...] = ()
) -> Iterator[GinFile]:
    """The files that `path` includes, each before the file that includes it, and `path` itself.

    An include is searched for in the folder of the file that includes it, then in the project. It
    is never taken from the working directory.

    Args:
        above: the files that include `path`.

    Raises:
        ConfigError: a file is missing, is not text, or includes itself.
    """
    if path in above:
        chain = " → ".join(str(link) for link in (*above, path))
        raise ConfigError(f"circular include: {chain}")
    text, parts, end = _read(path), list[str](), 0
    for match in _INCLUDE.finditer(text):
        try:
            included = find(expand_user(match["name"], "the Gin file"), [path.parent])
        except ConfigError as error:
            line = text.count("\n", 0, match.start("name")) + 1
            raise ConfigError(f"{path}, line {line}, includes a missing file: {error}") from error
        yield from read_with_includes(included, (*above, path))
        parts += [text[end : match.start()], f"{match['start']}{str(included)!r}"]
        end = match.end()
    whole, warnings = with_new_names("".join([*parts, text[end:]]), str(path))
    yield GinFile(path, whole, warnings)


def _read(path: pathlib.Path) -> str:
    """The text of a file; a byte-order mark and other systems' line ends are left out."""
    try:
        return read_text(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except NotUTF8Error as error:
        raise ConfigError(f"{path} cannot be read as a Gin file: {error}") from error


def find_or_name(name: str | None, files: Sequence[GinFile], bindings: Sequence[str]) -> str | None:
    """The path of a file that a setting names, see `find_named`; its name if there is none."""
    if name is None:
        return None
    try:
        return str(find_named(name, files, bindings))
    except ConfigError:
        return name  # an error only for a run that trains its teacher
