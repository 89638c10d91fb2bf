"""The bytes of each token of a `tokenizer.json`, so that two vocabularies can be compared."""

import re
from collections.abc import Mapping
from typing import Any

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def bytes_of_tokens(
    made: Mapping[str, Any], vocabulary: Mapping[str, int], size: int
) -> list[bytes]:
    """The bytes of each of `size` tokens; empty for special tokens and for unused numbers.

    Args:
        made: the content of the file, parsed.
        vocabulary: the written form of each token and its number.
    """
    special = {entry["content"] for entry in made.get("added_tokens", []) if entry["special"]}
    byte_level = "ByteLevel" in _kinds(made.get("decoder"), made.get("pre_tokenizer"))
    found = [b""] * size
    for written, number in vocabulary.items():
        if written not in special and number < size:
            found[number] = _of_byte_level(written) if byte_level else _of_text(written)
    return found


def _kinds(*parts: Any) -> set[str]:
    """The types of the parts of a tokenizer, and of the parts inside them."""
    found: set[str] = set()
    for part in parts:
        if isinstance(part, dict):
            found |= {part["type"]} | _kinds(*part.get("decoders", []))
            found |= _kinds(*part.get("pretokenizers", []))
    return found


def _of_byte_level(written: str) -> bytes:
    """The bytes of a token that has a character for each byte."""
    if all(character in _BYTES for character in written):
        return bytes(_BYTES[character] for character in written)
    return written.encode()  # an added token, which is written as it is


def _of_text(written: str) -> bytes:
    """The bytes of a token that is written as text: "▁" is a space, "<0x0A>" a byte."""
    if byte := BYTE_TOKEN.fullmatch(written):
        return bytes([int(byte[1], 16)])
    return written.removeprefix("##").replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """The byte of each character of byte-level BPE.

    A printable byte of Latin-1 stands for itself; the other bytes are U+0100 and up.
    """
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)) - set(printed))
    shown = {chr(value): value for value in printed}
    return shown | {chr(256 + index): value for index, value in enumerate(others)}


_BYTES = _byte_alphabet()
