"""Columns that two vocabularies have in common: `transform(student [N, C_s], teacher [N, C_t])`.

The result is a row of K columns for both networks, so that every policy and objective works on it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ctkd.checks import expect
from ctkd.errors import ConfigError
from ctkd.losses.per_row import full_precision
from ctkd.registry import TRANSFORMS

FEWEST = 2  # columns: with one, every softmax is 1
ABSENT = -1e30  # a logit whose probability is 0 at every T, with a gradient of 0


class VocabularyColumns(nn.Module):
    """A transform that depends on the tokens of both vocabularies: call `fit` before it is used.

    Attributes:
        prefixes: bytes that make further rows, see `ctkd.data.text.alignment`.
        teacher_is_made: whether the teacher's rows come from `of_teacher` already.
        moves_columns: after `fit`, whether a column of the result has another number than the
            student's token.
    """

    needs_tokens = True
    moves_columns = False
    teacher_is_made = False
    prefixes: tuple[bytes, ...] = ()

    def fit(self, student: Sequence[bytes], teacher: Sequence[bytes]) -> None:
        """Takes the bytes of each token of both vocabularies; b"" for a token that is no text.

        Raises:
            ConfigError: the vocabularies have fewer than two columns in common.
        """
        raise NotImplementedError

    def of_teacher(self, logits: Tensor, prefixes: Tensor) -> Tensor:
        """The teacher's rows [M, C_t] with the number of the prefix [M] that each row follows."""
        return logits

    def check_fitted(self, fitted: bool) -> None:
        """Raises ValueError before `fit`."""
        if not fitted:
            raise ValueError(
                f"{type(self).__name__} does not know the vocabularies: call "
                "fit(student_tokens, teacher_tokens) with the bytes of each token"
            )


@TRANSFORMS.register
class SharedColumns(VocabularyColumns):
    """The logits of the tokens that both vocabularies have, in the student's order.

    The softmax over these columns is each network's distribution given that the next token is a
    shared one. With one vocabulary the logits stay as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("student_columns", None, persistent=False)
        self.register_buffer("teacher_columns", None, persistent=False)
        self._fitted = False

    def fit(self, student: Sequence[bytes], teacher: Sequence[bytes]) -> None:
        """See `VocabularyColumns`. Of tokens with the same bytes the first one counts."""
        self._fitted = True
        if list(student) == list(teacher):
            return
        ours, theirs = _numbers(student), _numbers(teacher)
        shared = sorted((n, theirs[token]) for token, n in ours.items() if token in theirs)
        if len(shared) < FEWEST:
            raise ConfigError(
                f"SharedColumns: the vocabularies of {len(student):,} and {len(teacher):,} tokens "
                f"share {len(shared)}: expected {FEWEST} or more. Set Method.transform = "
                "@PrefixBytes, which needs no shared token"
            )
        self.student_columns, self.teacher_columns = torch.tensor(shared).unbind(1)
        self.moves_columns = [n for n, _ in shared] != [*range(len(student))]

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C_s] and [N, C_t] -> [N, K] and [N, K]."""
        self.check_fitted(self._fitted)
        if self.student_columns is None or self.teacher_columns is None:
            return student, teacher
        return student[:, self.student_columns], teacher[:, self.teacher_columns]


def _numbers(tokens: Sequence[bytes]) -> dict[bytes, int]:
    """The number of each token that is text; of equal ones the first."""
    return {token: n for n, token in reversed([*enumerate(tokens)]) if token}


@TRANSFORMS.register
class SortedColumns:
    """The k largest logits of each network, in descending order: column i is the i-th guess.

    ULD (Boizard et al. 2024, arXiv 2402.12030) compares probabilities by their rank, so that no
    token needs a partner; see `ctkd.losses.uld`. k is the size of the smaller vocabulary unless it
    is given, and each softmax is over its own k columns.

    With `padded` no column is cut: the shorter row is filled up with probabilities of 0, as
    published. Then T · ULD grows without limit, as T · 2 (1 − C_small / C_large), because two
    uniform distributions over different numbers of tokens differ. So a learned T is refused.

    Raises:
        ConfigError: k < 2, or both settings are given.
    """

    moves_columns = True

    def __init__(self, k: int | None = None, padded: bool = False) -> None:
        fine = k is None or k >= FEWEST
        expect(fine, "SortedColumns", "k", k, "None or a number of columns of 2 or more")
        expect(not (padded and k), "SortedColumns", "padded", padded, "False where k is given")
        self.k, self.padded = k, padded

    def __call__(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C_s] and [N, C_t] -> [N, k] and [N, k]; half precision becomes float32."""
        sizes = student.shape[1], teacher.shape[1]
        count = max(sizes) if self.padded else min(*sizes, self.k or min(sizes))
        return descending(student, count), descending(teacher, count)


def descending(logits: Tensor, count: int) -> Tensor:
    """[N, C] -> [N, count]: the largest logits, in order; behind the last one `ABSENT`."""
    logits = full_precision(logits)
    columns = logits.shape[1]
    largest = logits.topk(min(count, columns), dim=1).values
    return nn.functional.pad(largest, (0, max(0, count - columns)), value=ABSENT)
