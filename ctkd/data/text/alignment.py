"""Pairs the rows of two tokenizations of one text: rows at equal byte offsets can be compared.

Row i of the student has read the tokens up to i, and so the text up to a byte offset. A row of the
teacher that has read the text up to the same byte is its partner: both predict what comes next.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ctkd.data.text.documents import Document
from ctkd.data.text.windows import IGNORED, TokenStream, Windows

NONE = -1


class OtherText(NamedTuple):
    """The documents of a split in the teacher's tokens, and their bytes.

    Attributes:
        stream: the teacher's tokens.
        content: [bytes], the UTF-8 bytes of all documents, one after another (uint8).
        sizes: [documents], the number of bytes of each.
    """

    stream: TokenStream
    content: Tensor
    sizes: Tensor


def other_text(documents: Sequence[Document], stream: TokenStream) -> OtherText:
    """The documents of a stream with their bytes."""
    encoded = [document.text.encode() for document in documents]
    content = torch.frombuffer(bytearray(b"".join(encoded)), dtype=torch.uint8)
    return OtherText(stream, content, torch.tensor([len(each) for each in encoded]))


class Ends(NamedTuple):
    """Where the tokens of a stream begin and end in the bytes of all documents, [n] each.

    Attributes:
        exact: whether the token's end can be compared with another tokenization. If a character
            is split into several tokens, they share one offset: only the last end is exact.
    """

    starts: Tensor
    ends: Tensor
    documents: Tensor
    exact: Tensor


def ends_of(stream: TokenStream, sizes: Tensor) -> Ends:
    """The byte offsets of a stream's tokens; `sizes` are the bytes of each document."""
    base = sizes.cumsum(0) - sizes
    total = stream.bytes.cumsum(0)
    new = torch.ones_like(stream.documents, dtype=torch.bool)
    new[1:] = stream.documents[1:] != stream.documents[:-1]
    first = torch.where(new, torch.arange(len(new)), 0).cummax(0).values
    ends = base[stream.documents] + total - (total - stream.bytes)[first]
    following = torch.cat([stream.bytes[1:], torch.ones(1, dtype=torch.int64)])
    exact = (stream.bytes > 0) & (following > 0)
    return Ends(ends - stream.bytes, ends, stream.documents, exact)


class Pairs(NamedTuple):
    """The rows of some windows that have a partner, and the inputs of the teacher.

    Attributes:
        rows: [M], their indices among the rows of the student that count, ascending.
        partners: [M], the indices of the teacher's rows among its B · L inputs.
        prefixes: [M], the prefix of the teacher's next token that the student has read, 0 for none.
        targets: [M], the teacher's next token.
        follows: [M], whether the next pair lies in the same window and document.
        ids, documents: [B, L], the teacher's inputs; 0 for padding.
    """

    rows: Tensor
    partners: Tensor
    prefixes: Tensor
    targets: Tensor
    follows: Tensor
    ids: Tensor
    documents: Tensor


class Alignment:
    """The partners of a student's rows among the rows of a teacher with other tokens.

    The teacher reads the text of the student's window, from the first token that starts in it.

    Attributes:
        lengths: [windows], the teacher's tokens in each window of the student.
    """

    def __init__(self, windows: Windows, other: OtherText, prefixes: Sequence[bytes] = ()) -> None:
        """Aligns all windows of a split.

        Args:
            windows: the student's.
            other: the same documents in the teacher's tokens.
            prefixes: byte strings. A row of the student that has just read a prefix is also
                paired with the row of the teacher that has read the text before the prefix.
        """
        self.windows, self._teacher = windows, other.stream
        self._ours = ends_of(windows.stream, other.sizes)
        self._theirs = ends_of(other.stream, other.sizes)
        self._partner = self._partners_of(0)
        self._prefix = torch.zeros_like(self._partner)
        for number, prefix in enumerate(prefixes, 1):
            found = self._partners_of(len(prefix))
            new = (found != NONE) & (self._partner == NONE) & self._reads(prefix, other.content)
            self._partner = torch.where(new, found, self._partner)
            self._prefix[new] = number
        inputs = windows.positions(torch.arange(len(windows)))
        last = inputs[:, -1].clamp(max=len(windows.stream) - 1)
        starts, ends = self._ours.starts[inputs[:, 0]], self._ours.ends[last]
        self._first = torch.searchsorted(self._theirs.starts, starts)
        stop = torch.searchsorted(self._theirs.ends, ends, right=True)
        self.lengths = (stop - self._first).clamp(min=1)

    def _partners_of(self, shift: int) -> Tensor:
        """The teacher's token that ends `shift` bytes before each of the student's, or `NONE`."""
        usable = self._theirs.exact.nonzero().squeeze(1)
        ends, wanted = self._theirs.ends[usable], self._ours.ends - shift
        at = torch.searchsorted(ends, wanted).clamp(max=len(ends) - 1)
        found = usable[at]
        fine = (ends[at] == wanted) & self._ours.exact
        fine &= self._theirs.documents[found] == self._ours.documents
        return torch.where(fine, found, NONE)

    def _reads(self, prefix: bytes, content: Tensor) -> Tensor:
        """Whether the text before the end of each of the student's tokens is the prefix."""
        reads = torch.ones_like(self._ours.exact)
        for back, byte in enumerate(reversed(prefix), 1):
            reads &= content[(self._ours.ends - back).clamp(min=0)] == byte
        return reads

    def pairs(self, chosen: Tensor) -> Pairs:
        """The pairs of the chosen windows."""
        at = self.windows.positions(chosen)
        counted = self.windows.targets(chosen) != IGNORED
        taken = at.clamp(max=len(self._partner) - 1)
        first, lengths = self._first[chosen, None], self.lengths[chosen, None]
        inside = self._partner[taken] - first
        paired = counted & (self._partner[taken] != NONE) & (inside >= 0) & (inside < lengths)
        width = int(lengths.max())
        ids, documents = self.tokens(chosen, width)
        windows = torch.arange(len(chosen))[:, None].expand_as(paired)
        partner = self._partner[taken][paired]
        places = torch.stack([windows[paired], self._ours.documents[taken][paired]])
        follows = torch.zeros(len(partner), dtype=torch.bool)
        follows[:-1] = (places[:, 1:] == places[:, :-1]).all(0)
        return Pairs(
            rows=(counted.flatten().cumsum(0) - 1).view_as(counted)[paired],
            partners=(windows * width + inside)[paired],
            prefixes=self._prefix[taken][paired],
            targets=self._teacher.ids[(partner + 1).clamp(max=len(self._teacher) - 1)],
            follows=follows,
            ids=ids,
            documents=documents,
        )

    def tokens(self, chosen: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """The teacher's inputs of the windows and their documents, [B, width]; 0 for padding."""
        offsets = torch.arange(width)
        at = (self._first[chosen, None] + offsets).clamp(max=len(self._teacher) - 1)
        padded = offsets >= self.lengths[chosen, None]
        return self._teacher.ids[at].masked_fill(padded, 0), self._teacher.documents[at]
