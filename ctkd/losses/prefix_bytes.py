"""The next byte by either vocabulary: the probability of all tokens that begin with it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ctkd.checks import expect
from ctkd.errors import ConfigError
from ctkd.losses.columns import FEWEST, VocabularyColumns
from ctkd.losses.per_row import full_precision
from ctkd.registry import TRANSFORMS

UNREACHED = 100.0  # nats below the best column: the logit of a byte that no token leads to


@TRANSFORMS.register
class PrefixBytes(VocabularyColumns):
    """z_b = log Σ exp z_c over the tokens c that begin with byte b: one column for each byte.

    Adding probabilities is exact at T = 1, so softmax(z_b) is what the network says of the next
    byte. T softens after the sum, because it softens a row of bytes. Tokens that are no text, and
    bytes that begin no token of the other vocabulary, share a last column.

    After a space nearly all is decided, and most tokens of BPE begin with one. So a row of the
    teacher also serves the student's row that has read the space, as its distribution given that
    the next token begins with a space: z_b then sums the tokens that begin with a space and b. The
    tokens that end there are left out; `mass_of_ends` is their share.

    Args:
        after: the beginnings of tokens that make such rows; () for none.

    Raises:
        ConfigError: `after` has an empty text.
    """

    def __init__(self, after: Sequence[str] = (" ",)) -> None:
        super().__init__()
        fine = not isinstance(after, str) and all(isinstance(a, str) and a for a in after)
        expect(fine, "PrefixBytes", "after", after, "a list of texts, such as [' '], or ()")
        self.prefixes = tuple(text.encode() for text in after)
        self.register_buffer("student_columns", None, persistent=False)
        self.register_buffer("teacher_columns", None, persistent=False)
        self.register_buffer("_ends", None, persistent=False)
        self._count = 0

    def fit(self, student: Sequence[bytes], teacher: Sequence[bytes]) -> None:
        """See `VocabularyColumns`."""
        common = sorted({t[0] for t in student if t} & {t[0] for t in teacher if t})
        if len(common) < FEWEST:
            raise ConfigError(
                f"PrefixBytes: the tokens of the two vocabularies begin with {len(common)} common "
                f"bytes: expected {FEWEST} or more"
            )
        column = {byte: number for number, byte in enumerate(common)}
        rest = len(common)

        def columns(tokens: Sequence[bytes], prefix: bytes = b"") -> list[int]:
            """The column of each token's byte after the prefix; −1 for a token without it."""
            size = len(prefix)
            longer = [t.startswith(prefix) and (len(t) > size or not prefix) for t in tokens]
            found = [column.get(t[size], rest) if len(t) > size else rest for t in tokens]
            return [c if fits else -1 for c, fits in zip(found, longer, strict=True)]

        ours, theirs = columns(student), [columns(teacher, p) for p in (b"", *self.prefixes)]
        self._count = rest + (rest in [*ours, *theirs[0]])
        self.student_columns = torch.tensor(ours)
        self.moves_columns = ours != [*range(len(ours))]
        self.teacher_columns = torch.tensor(theirs)
        self._ends = torch.tensor([[t == p for t in teacher] for p in (b"", *self.prefixes)])

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C_s] and [N, C_t], or [N, K] of `of_teacher`, -> [N, K] and [N, K]."""
        self.check_fitted(self._count > 0)
        assert self.student_columns is not None
        if not self.teacher_is_made:
            teacher = self.of_teacher(teacher, torch.zeros_like(teacher[:, 0], dtype=torch.int64))
        return sums_by_column(student, self.student_columns, self._count), teacher

    def of_teacher(self, logits: Tensor, prefixes: Tensor) -> Tensor:
        """See `VocabularyColumns`: [M, K], given the prefix of each row."""
        self.check_fitted(self._count > 0)
        assert self.teacher_columns is not None
        return sums_by_column(logits, self.teacher_columns[prefixes], self._count)

    def mass_of_ends(self, logits: Tensor, prefixes: Tensor) -> Tensor:
        """[M], of the tokens that begin with a row's prefix, the share that is the prefix alone."""
        assert self.teacher_columns is not None
        assert self._ends is not None
        p = full_precision(logits).softmax(1)
        ends = (p * self._ends[prefixes]).sum(1)
        return ends / (ends + (p * (self.teacher_columns[prefixes] >= 0)).sum(1))


def sums_by_column(logits: Tensor, columns: Tensor, count: int) -> Tensor:
    """Log Σ exp z over the tokens of each column, [N, C] -> [N, count].

    Summed in float64: float32 loses digits over tens of thousands of tokens. Costs three arrays of
    [N, C].

    Args:
        columns: [C] or [N, C], from 0 to count − 1; a negative one is left out.
    """
    logits = full_precision(logits)
    index = torch.where(columns < 0, count, columns).expand_as(logits)
    fixed = logits.detach()
    lowest = fixed.amax(1, keepdim=True) - UNREACHED
    best = lowest.expand(-1, count + 1).scatter_reduce(1, index, fixed, "amax")
    parts = (logits - best.gather(1, index)).double().exp()
    sums = parts.new_zeros(len(logits), count + 1).scatter_add(1, index, parts)
    # An empty column has the sum 0, and keeps `lowest` without a gradient.
    found = sums.clamp(min=torch.finfo(torch.float64).tiny).log().to(logits) + best
    return torch.where(sums > 0, found, best)[:, :count]
