"""Text documents, with the class of each word if it is known, and their splits."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ctkd.errors import DataError
from ctkd.seeds import generator

SMALLEST = 3  # documents of a data set: one for each split


@dataclass(frozen=True)
class Document:
    """A text, which belongs to one split as a whole.

    Attributes:
        name: a file, or another name for messages.
        text: the whole text.
        prompt: characters at the start that are given and not predicted.
        group: documents are split within each group (a genre), so that every split has all groups.
        tag_ends, tags: the end of each stretch of characters, ascending, and its class, an index
            into the data set's `tag_names`. Empty where no classes are known.
    """

    name: str
    text: str
    prompt: int = 0
    group: str = ""
    tag_ends: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    tags: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))


@dataclass(frozen=True)
class DocumentSplits:
    """The documents of each split; validation may be empty."""

    train: list[Document]
    validation: list[Document]
    test: list[Document]


def split_documents(
    documents: Sequence[Document], test: float, validation: float
) -> DocumentSplits:
    """Splits by document, the same for every seed.

    Args:
        test, validation: shares of the documents of each group, rounded, at least one document;
            `validation` may be 0.

    Raises:
        DataError: there are fewer than three documents.
    """
    if len(documents) < SMALLEST:
        raise DataError(
            f"{len(documents)} document{'s' if len(documents) != 1 else ''} of text: expected "
            f"{SMALLEST} or more, since training and test split by document. Cut a long file into "
            "several files, or set text_files.separator to the text between two documents"
        )
    groups: dict[str, list[Document]] = {}
    for document in documents:
        groups.setdefault(document.group, []).append(document)
    if any(len(members) < SMALLEST for members in groups.values()):
        groups = {"": list(documents)}
    splits = DocumentSplits([], [], [])
    for name, members in groups.items():
        order = torch.randperm(len(members), generator=generator("documents", name)).tolist()
        first = max(1, round(test * len(members)))
        second = first + (max(1, round(validation * len(members))) if validation else 0)
        cuts = order[:first], order[first:second], order[second:]
        for chosen, split in zip(cuts, (splits.test, splits.validation, splits.train), strict=True):
            split.extend(members[index] for index in sorted(chosen))
    return splits
