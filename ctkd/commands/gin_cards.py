"""The Gin files that come with ctkd, as `ctkd list` describes them: methods, pairs, sweeps."""

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ctkd.command_line import ROOT

# A file of one of these names completes other files, or trains a teacher: it is not a method.
NO_METHOD = re.compile(r"base|sample|teacher.*")
FIRST = "cifar100"  # its cards describe a method where several data sets have the method
_PAIR = re.compile(r"[,:] [\w-]+ (→|alone, by) .*")
_SENTENCE = re.compile(r"(?<! al)\.(?: |$)|: given after")


@dataclass(frozen=True)
class GinCard:
    """A Gin file and the comment that it opens with.

    Attributes:
        path: from the folder that holds `gin/`.
        card: the comment, without its number signs.
        text: the whole file.
    """

    path: Path
    card: str
    text: str

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    @property
    def folder(self) -> str:
        """The folder below `gin/`: a data set's, such as cifar100 or cifar100/vit; or sweeps."""
        return "/".join(self.path.parts[1:-1])

    @property
    def top(self) -> str:
        """The first part of the folder."""
        return self.folder.partition("/")[0]

    @property
    def is_method(self) -> bool:
        """Whether the file chooses a method, itself or by what it includes."""
        code = _code(self.text)
        chooses = "Method." in code or "include " in code
        return chooses and not self.is_pair and not NO_METHOD.fullmatch(self.name)

    @property
    def summary(self) -> str:
        """The card's first sentence."""
        paragraph = " ".join(self.card.split("\n\n")[0].split())
        return _SENTENCE.split(paragraph)[0]

    @property
    def is_pair(self) -> bool:
        """Whether the file sets a teacher and a student, and is given after a method's file."""
        return self.path.parent.name == "pairs"


@functools.cache
def gin_cards() -> tuple[GinCard, ...]:
    """All Gin files of `gin/`: those of CIFAR-100 first, in a folder `base.gin` first."""
    paths = [path.relative_to(ROOT) for path in (ROOT / "gin").rglob("*.gin")]
    found = [GinCard(path, *_read(ROOT / path)) for path in paths]
    return tuple(
        sorted(found, key=lambda c: (c.folder != FIRST, c.folder, c.name != "base", str(c.path)))
    )


def _read(path: Path) -> tuple[str, str]:
    text = path.read_text(encoding="utf-8")
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines), text


def method_cards() -> dict[str, list[GinCard]]:
    """The files of each method, by its name: one for each data set that has the method."""
    methods: dict[str, list[GinCard]] = {}
    for card in gin_cards():
        if card.top in _data_folders() and card.is_method:
            methods.setdefault(card.name, []).append(card)
    return dict(sorted(methods.items()))


def further_cards() -> dict[str, list[GinCard]]:
    """The files of the folders that are no data set's: sweeps, and parts for any method."""
    folders: dict[str, list[GinCard]] = {}
    for card in gin_cards():
        if card.folder and card.top not in _data_folders():
            folders.setdefault(card.folder, []).append(card)
    return folders


def _data_folders() -> set[str]:
    """The folders that hold methods: the base.gin of each chooses a data set."""
    return {c.folder for c in gin_cards() if c.name == "base" and "Recipe.dataset =" in c.text}


def method_summary(card: GinCard) -> str:
    """The card's first sentence without the data set and without the pair."""
    words = card.summary.partition(", ")[2] or card.summary
    return _PAIR.sub("", words)


def files_with(name: str) -> list[str]:
    """The paths of the Gin files that refer to the component `name`."""
    return _references().get(name, [])


@functools.cache
def _references() -> dict[str, list[str]]:
    """The Gin files that refer to each name."""
    found: dict[str, list[str]] = {}
    for card in gin_cards():
        for name in dict.fromkeys(re.findall(r"@(\w+)", _code(card.text))):
            found.setdefault(name, []).append(str(card.path))
    return found


def _code(text: str) -> str:
    return re.sub(r"#.*", "", text)


def cards_named(name: str, cards: Iterable[GinCard]) -> Iterator[GinCard]:
    """Those of the cards whose file is called `name`."""
    return (card for card in cards if card.name == name)
