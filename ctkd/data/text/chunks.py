"""Chunks: the text between neighboring byte offsets at which tokens of both networks end."""

from typing import NamedTuple

import torch
from torch import Tensor

from ctkd.data.text.alignment import Pairs


class Chunks(NamedTuple):
    """The M chunks of some windows, and the rows from which their likelihoods are computed.

    Attributes:
        size: M.
        first: [M], each chunk's first row among the rows of the student that count.
        student: [N], the chunk of each row of the student that counts; M for none.
        partners: [R], the teacher's rows of all chunks among its B · L inputs.
        teacher: [R], the chunk of each of them.
        targets: [R], the token that each of them predicts.
    """

    size: int
    first: Tensor
    student: Tensor
    partners: Tensor
    teacher: Tensor
    targets: Tensor


def chunks_of(pairs: Pairs, rows: int) -> Chunks:
    """The chunks from each pair to the next one of its window and document.

    Args:
        rows: the number of rows of the student that count.
    """
    begins = pairs.follows.nonzero().squeeze(1)
    count = len(begins)
    number = torch.full((len(pairs.rows) + 1,), count)
    number[begins] = torch.arange(count)
    at = torch.searchsorted(pairs.rows, torch.arange(rows), right=True) - 1
    student = number[at]  # −1, before the first pair, is the last entry: no chunk
    first, stop = pairs.partners[begins], pairs.partners[begins + 1]
    lengths = stop - first
    teacher = torch.arange(count).repeat_interleave(lengths)
    within = torch.arange(len(teacher)) - (lengths.cumsum(0) - lengths)[teacher]
    partners = first[teacher] + within
    return Chunks(
        count, pairs.rows[begins], student, partners, teacher, pairs.ids.flatten()[partners + 1]
    )
