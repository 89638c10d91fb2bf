"""Rows of two tokenizations are paired where they have read the same bytes of one document."""

import re

import numpy as np
import pytest
import torch

from ctkd.data.text.alignment import Alignment, other_text
from ctkd.data.text.chunks import chunks_of
from ctkd.data.text.documents import Document
from ctkd.data.text.token_bytes import bytes_of_tokens
from ctkd.data.text.tokenizer import BPETokenizer, ByteTokenizer, Encoded
from ctkd.data.text.windows import IGNORED, Windows, stream_of


class Words:
    """Pieces of up to four letters with the space before them; a number for each new one."""

    size = 10_000

    def __init__(self):
        self.pieces = []

    def encode(self, texts):
        found = []
        for text in texts:
            parts = re.findall(r" ?\w{1,4}|[^\w ]| ", text)
            self.pieces += [part for part in parts if part not in self.pieces]
            ids = np.array([self.pieces.index(part) for part in parts])
            ends = np.cumsum([len(part) for part in parts])
            sizes = np.array([len(part.encode()) for part in parts])
            found.append(Encoded(ids, ends - [len(p) for p in parts], ends, sizes))
        return found


TEXTS = ("the naïve fox – jumps", "overseas  trade", "x", "a lazy dog sleeps there")


def aligned(context, prefixes=(), prompt=0):
    documents = [Document(str(n), text, prompt=prompt) for n, text in enumerate(TEXTS)]
    words = Words()
    windows = Windows(stream_of(documents, ByteTokenizer()), context)
    other = other_text(documents, stream_of(documents, words))
    return Alignment(windows, other, prefixes), words


@pytest.mark.parametrize("context", [9, 16, 200])
@pytest.mark.parametrize("prompt", [0, 3])
def test_partners_have_read_the_same_text_and_predict_what_follows(context, prompt):
    alignment, words = aligned(context, (b" ",), prompt)
    windows, seen = alignment.windows, []
    every = torch.arange(len(windows))
    pairs = alignment.pairs(every)
    ids, targets = windows.ids(every), windows.targets(every)
    rows = (targets != IGNORED).flatten().nonzero().squeeze(1)[pairs.rows]
    width = pairs.ids.shape[1]
    for row, partner, prefix, target in zip(
        rows.tolist(), pairs.partners.tolist(), pairs.prefixes.tolist(), pairs.targets, strict=True
    ):
        window, at = divmod(row, context)
        assert partner // width == window
        inputs = pairs.ids[window, : partner % width + 1].tolist()
        known = "".join(words.pieces[n] for n in inputs).encode() + b" " * prefix
        read = bytes(ids[window, : at + 1].tolist())
        assert read.endswith(known[-len(read) :])
        expected = bytes([int(targets[window, at])])
        assert words.pieces[int(target)].encode()[prefix:].startswith(expected)
        seen.append(prefix)
    assert {*seen} == {0, 1}
    assert (pairs.rows.diff() > 0).all()


def test_every_common_end_of_a_document_is_paired():
    alignment, words = aligned(200)
    ends = [np.cumsum([len(p.encode()) for p in parts]) for parts in pieces(words)]
    # The last end of a document predicts nothing.
    assert len(alignment.pairs(torch.arange(1)).rows) == sum(len(e) - 1 for e in ends)


@pytest.mark.parametrize("context", [9, 200])
def test_a_chunk_is_the_same_text_for_both_networks(context):
    alignment, words = aligned(context)
    every = torch.arange(len(alignment.windows))
    targets = alignment.windows.targets(every)
    targets = targets[targets != IGNORED]
    pairs = alignment.pairs(every)
    chunks = chunks_of(pairs, len(targets))
    assert chunks.size > 3
    for chunk in range(chunks.size):
        ours = bytes(targets[chunks.student == chunk].tolist())
        theirs = "".join(words.pieces[n] for n in chunks.targets[chunks.teacher == chunk])
        assert ours == theirs.encode()
        assert (chunks.student == chunk).nonzero()[0] == chunks.first[chunk]


def pieces(words):
    return [[words.pieces[n] for n in words.encode([text])[0].ids] for text in TEXTS]


def test_split_characters_have_no_partner(tmp_path, monkeypatch):
    """A BPE of 257 tokens cuts "ï" into its two bytes, and no row between them is paired."""
    pytest.importorskip("tokenizers")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    documents = [Document("x", "naïve naïve")]
    bpe = BPETokenizer(257, "x")
    bpe.fit(documents)
    windows = Windows(stream_of(documents, ByteTokenizer()), 64)
    alignment = Alignment(windows, other_text(documents, stream_of(documents, bpe)))
    pairs = alignment.pairs(torch.arange(1))
    assert "".join(chr(c) for c in windows.ids(torch.arange(1))[0, pairs.rows]) == "nve nv"
    assert sorted(bpe.token_bytes())[:3] == [b"\x00", b"\x01", b"\x02"]
    assert {len(token) for token in bpe.token_bytes()} == {1, 2}


def test_bytes_of_tokens_in_the_forms_of_tokenizer_files():
    words = {"</s>": 0, "▁the": 1, "<0x0A>": 2, "é": 3, "##ing": 4}
    special = {"added_tokens": [{"content": "</s>", "special": True}], "decoder": None}
    found = bytes_of_tokens(special, words, 6)
    assert found == [b"", b" the", b"\n", "é".encode(), b"ing", b""]
    level = {**special, "decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]}}
    assert bytes_of_tokens(level, {"Ġthe": 0, "Ã©": 1, "Ċ": 2}, 3) == [b" the", "é".encode(), b"\n"]
