"""Tokens of a split, packed into windows; row i of a window predicts token i + 1.

The documents of a split are one stream of tokens. A window is a stretch of `context` of them, and
a document may begin inside it. Three kinds of tokens are never predicted: the first one of a
document, since its row would belong to another document; the tokens of a prompt; and padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctkd.data.text.documents import Document
from ctkd.data.text.tokenizer import Tokenizer, check_ids, code_points
from ctkd.errors import DataError

IGNORED = -100  # the target of a row that does not count


@dataclass(frozen=True)
class TokenStream:
    """The documents of a split, one after another. All tensors are [n] and on the CPU.

    Attributes:
        ids: the tokens (int64).
        documents: the number of each token's document (int64).
        counted: whether the token is predicted.
        bytes: each token's share of the bytes of the text (int64).
        tags: the class of each token's word, or −1 (int64).
        later: whether the token continues a word that an earlier token began.
    """

    ids: Tensor
    documents: Tensor
    counted: Tensor
    bytes: Tensor
    tags: Tensor
    later: Tensor

    def __len__(self) -> int:
        return len(self.ids)


def stream_of(documents: Sequence[Document], tokenizer: Tokenizer) -> TokenStream:
    """Encodes the documents; those without a token are left out.

    Raises:
        DataError: no document has a token.
    """
    parts: list[list[Tensor]] = []
    made = tokenizer.encode([document.text for document in documents])
    for number, (document, encoded) in enumerate(zip(documents, made, strict=True)):
        ids, starts, ends, sizes = encoded
        if not len(ids):
            continue
        check_ids(ids, tokenizer.size, document.name)
        counted = starts >= document.prompt
        counted[0] = False
        classes, later = _words(document, starts, ends)
        columns = (ids, np.full_like(ids, number), counted, sizes, classes, later)
        parts.append([torch.from_numpy(np.ascontiguousarray(column)) for column in columns])
    if not parts:
        raise DataError("the documents of a split contain no token")
    return TokenStream(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _words(
    document: Document, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Of each token, the class of its word (−1 for none), and whether it continues a word."""
    points = code_points(document.text)
    space = (points <= 32) | (points == 0xA0)
    after = np.where(space, len(points), np.arange(len(points)))
    after = np.append(np.minimum.accumulate(after[::-1])[::-1], len(points))
    first = after[starts]  # the first character of the token that is not a space
    classes = np.full(len(starts), -1, np.int64)
    if len(document.tags):
        word = np.searchsorted(document.tag_ends, first, side="right")
        known = (first < ends) & (word < len(document.tags))
        classes[known] = document.tags[word[known]]
    letters = _letters(points)
    before = np.append(False, letters[:-1])
    return classes, letters[starts] & before[starts]


def _letters(points: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Whether each character is a letter or a digit; all beyond ASCII count as letters."""
    lower = points | 32
    ascii_letter = (lower >= ord("a")) & (lower <= ord("z"))
    letters: NDArray[np.bool_] = ascii_letter | ((points >= 48) & (points <= 57)) | (points >= 128)
    return letters


class Windows:
    """Windows of a stream, with [context] inputs each, at multiples of the stride.

    With a stride below `context`, windows overlap, and each counts only its last `stride` rows (the
    first window counts all). So every token is predicted once, after at least `context` − `stride`
    tokens of its document, if the document has so many.

    Attributes:
        rows: [windows], the number of rows of each window that count. Windows without one are left
            out.
    """

    def __init__(self, stream: TokenStream, context: int, stride: int | None = None) -> None:
        """Cuts the stream; `stride` is `context` by default."""
        self.stream, self.context = stream, context
        self._new = context if stride is None else stride
        last = len(stream) - 1  # the last token is predicted, but predicts nothing
        self._starts = torch.arange(0, max(1, last - (context - self._new)), self._new)
        rows = (self.targets(torch.arange(len(self._starts))) != IGNORED).sum(1)
        self._starts, self.rows = self._starts[rows > 0], rows[rows > 0]

    def __len__(self) -> int:
        return len(self._starts)

    def positions(self, windows: Tensor) -> Tensor:
        """[B, context], the index in the stream of each input; beyond the end for padding."""
        return self._starts[windows][:, None] + torch.arange(self.context)

    def ids(self, windows: Tensor) -> Tensor:
        """[B, context], the input tokens; 0 for padding."""
        at = self.positions(windows)
        return self._taken(self.stream.ids, at).masked_fill(at >= len(self.stream), 0)

    def documents(self, windows: Tensor) -> Tensor | None:
        """[B, context], the document of each input; None if every window has only one."""
        numbers = self._taken(self.stream.documents, self.positions(windows))
        return None if bool((numbers == numbers[:, :1]).all()) else numbers

    def targets(self, windows: Tensor) -> Tensor:
        """[B, context], the token after each input, `IGNORED` where the row does not count."""
        at = self.positions(windows) + 1
        counted = self._taken(self.stream.counted, at) & (at < len(self.stream))
        first = self._starts[windows] == 0
        new = torch.arange(self.context) >= self.context - self._new
        counted &= new | first[:, None]
        return self._taken(self.stream.ids, at).masked_fill(~counted, IGNORED)

    def of_targets(self, column: Tensor, windows: Tensor) -> Tensor:
        """A column of the stream at the targets of the rows that count, [N]."""
        counted = self.targets(windows) != IGNORED
        return self._taken(column, self.positions(windows) + 1)[counted]

    @staticmethod
    def _taken(column: Tensor, at: Tensor) -> Tensor:
        return column[at.clamp(max=len(column) - 1)]
