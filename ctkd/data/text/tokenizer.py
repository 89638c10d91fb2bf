"""Tokenizers: bytes, byte-level BPE trained on the training documents, or a `tokenizer.json`."""

import abc
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctkd.data.text.documents import Document
from ctkd.data.text.token_bytes import bytes_of_tokens
from ctkd.errors import ConfigError, DataError
from ctkd.files import replacing, user_path

INSTALL = "pip install 'ctkd[language]'"


class Encoded(NamedTuple):
    """The tokens of a text [n], with the characters [start, end) of each.

    `bytes` is the share of each token in the UTF-8 bytes of the text.
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    bytes: NDArray[np.int64]


class Tokenizer(abc.ABC):
    """Text to tokens and back.

    Attributes:
        size: the number of tokens, which is the number of columns of a row of logits.
    """

    size: int

    def fit(self, documents: Sequence[Document]) -> None:
        """Prepares the tokenizer from the training documents, if it depends on them."""
        return None

    @abc.abstractmethod
    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The tokens of each text."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens; bytes that are not UTF-8 become U+FFFD."""

    def vocabulary(self) -> dict[str, int] | None:
        """The number of each token; None where the tokenizer has yet to be trained."""
        return None

    @abc.abstractmethod
    def token_bytes(self) -> list[bytes]:
        """The bytes of each token; empty for a token that is not text."""

    @property
    @abc.abstractmethod
    def named(self) -> str:
        """The tokenizer for messages, and for comparing the settings of two runs."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """16 hexadecimal digits that depend on the whole vocabulary."""


def code_points(text: str) -> NDArray[np.uint32]:
    """The Unicode code point of each character."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def byte_positions(text: str) -> NDArray[np.int64]:
    """[len + 1], the position of each character in the UTF-8 bytes of the text, and their end."""
    points = code_points(text)
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([[0], np.cumsum(sizes)])


class ByteTokenizer(Tokenizer):
    """Every byte of the UTF-8 text is a token."""

    size = 256
    named = "bytes"

    def token_bytes(self) -> list[bytes]:
        """See `Tokenizer`."""
        return [bytes([value]) for value in range(self.size)]

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """See `Tokenizer`."""
        return [self._encode(text) for text in texts]

    @staticmethod
    def _encode(text: str) -> Encoded:
        content = np.frombuffer(text.encode("utf-8"), np.uint8)
        starts = np.cumsum((content & 0xC0) != 0x80) - 1  # a byte 10xxxxxx continues a character
        return Encoded(content.astype(np.int64), starts, starts + 1, np.ones_like(starts))

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer`."""
        return bytes(ids).decode("utf-8", errors="replace")

    def fingerprint(self) -> str:
        """See `Tokenizer`."""
        return "bytes"


class FileTokenizer(Tokenizer):
    """A `tokenizer.json` of the `tokenizers` library, as Hugging Face's models have one."""

    named = ""  # of the class; each object sets its own

    def __init__(self, path: str | os.PathLike[str], setting: str) -> None:
        """Reads the file, or the file `tokenizer.json` in a folder.

        Raises:
            ConfigError: there is no such file, it is damaged, or `tokenizers` is missing.
        """
        file = user_path(path, setting)
        file = file / "tokenizer.json" if file.is_dir() else file
        if not file.is_file():
            raise ConfigError(
                f"{setting} = {os.fspath(path)!r}: no such file; expected 'bytes', 'bpe', or the "
                "path of a tokenizer.json or of its folder"
            )
        library = _library(setting)
        try:
            self._made: Any = library.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain Exception for a damaged file
            raise ConfigError(f"{setting}: {file} is not a tokenizer.json: {error}") from error
        self._made.no_truncation()
        self._made.no_padding()
        self.named = f"the tokenizer of {file}"
        self.size = self._made.get_vocab_size(with_added_tokens=True)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """See `Tokenizer`; no special tokens are added."""
        found = []
        encodings = self._made.encode_batch(list(texts), add_special_tokens=False)
        for text, made in zip(texts, encodings, strict=True):
            starts, ends = np.array(made.offsets, dtype=np.int64).reshape(-1, 2).T
            # A character whose bytes are several tokens counts at the last of them.
            reached = byte_positions(text)[np.maximum.accumulate(ends)]
            ids = np.array(made.ids, np.int64)
            found.append(Encoded(ids, starts, ends, np.diff(reached, prepend=0)))
        return found

    def vocabulary(self) -> dict[str, int] | None:
        """See `Tokenizer`."""
        made = getattr(self, "_made", None)
        found: dict[str, int] | None = made and made.get_vocab(with_added_tokens=True)
        return found

    def token_bytes(self) -> list[bytes]:
        """See `Tokenizer`."""
        return bytes_of_tokens(json.loads(self._made.to_str()), self._made.get_vocab(), self.size)

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer`."""
        text: str = self._made.decode(list(ids), skip_special_tokens=False)
        return text

    def fingerprint(self) -> str:
        """See `Tokenizer`."""
        return _digest(self._made.to_str())


class BPETokenizer(FileTokenizer):
    """Byte-level BPE with a vocabulary of a given size, trained on the training documents.

    It is trained once: the result is kept under a hash of the documents and the size, in
    ctkd/tokenizers of the folder XDG_CACHE_HOME, or of the cache folder of the user.
    """

    def __init__(self, size: int, setting: str) -> None:
        """Trains nothing yet. Raises ConfigError where `tokenizers` is missing."""
        self.size, self._setting = size, setting
        self.named = f"byte-level BPE of {size:,} tokens"
        _library(setting)

    def fit(self, documents: Sequence[Document]) -> None:
        """See `Tokenizer`: trains, or reads what an earlier run trained."""
        library = _library(self._setting)
        texts = [document.text for document in documents]
        key = _digest(json.dumps([library.__version__, self.size, texts]))
        path = _cache() / f"bpe-{self.size}-{key}.json"
        if not path.is_file():
            made = _trained(library, texts, self.size)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as part:
                    part.write_text(made.to_str(), encoding="utf-8")
            except OSError:  # a read-only home: trained again by the next run
                self._made = made
                return
        self._made = library.Tokenizer.from_str(path.read_text(encoding="utf-8"))


def _trained(library: Any, texts: Sequence[str], size: int) -> Any:
    """A byte-level BPE of at most `size` tokens."""
    made = library.Tokenizer(library.models.BPE())
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return made


def _cache() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(base) / "ctkd" / "tokenizers"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _library(setting: str) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError(
            f"{setting}: this choice needs the package `tokenizers`: {INSTALL}, or set it to "
            "'bytes', which needs no package"
        ) from error
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # workers are forked later
    return tokenizers


def make_tokenizer(given: str, vocabulary: int, owner: str) -> Tokenizer:
    """The tokenizer that the setting `owner.tokenizer` names: 'bytes', 'bpe', or a path."""
    if given == "bytes":
        return ByteTokenizer()
    if given == "bpe":
        return BPETokenizer(vocabulary, f"{owner}.tokenizer")
    return FileTokenizer(given, f"{owner}.tokenizer")


def check_ids(ids: NDArray[np.int64], size: int, name: str) -> None:
    """Raises DataError for a token outside the vocabulary."""
    if len(ids) and not 0 <= ids.min() <= ids.max() < size:
        raise DataError(f"{name}: token {int(ids.max())} is outside the vocabulary of {size}")
