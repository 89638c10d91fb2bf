"""The language task with a teacher that cuts the text into other tokens than the student.

Rows of both networks are paired where their tokens end at the same byte. The game is played on the
pairs. The student's other rows have cross-entropy only, with weight 1.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ctkd.data.dataset import digest
from ctkd.data.text.alignment import Alignment, OtherText, Pairs
from ctkd.data.text.windows import IGNORED, Windows
from ctkd.engine.task import Batch, Kind, Rows
from ctkd.engine.tasks.language import LanguageTask
from ctkd.engine.tasks.language_metrics import language_metrics
from ctkd.losses.columns import VocabularyColumns
from ctkd.losses.per_row import cross_entropy_rows
from ctkd.models.language_model import TokenInputs
from ctkd.seeds import generator


class TwoVocabularies(LanguageTask):
    """Windows of text; the game is played on the rows where both tokenizations end.

    Attributes:
        alignment: of the training windows.
    """

    shuffled = False
    _columns: VocabularyColumns | None = None

    def align(self, other: Mapping[str, OtherText], transform: Any, shuffled: bool) -> None:
        """Pairs the rows of all training windows.

        Args:
            other: "train" and "test" in the teacher's tokens.
            transform: of the game; it takes the tokens of both vocabularies.
            shuffled: whether the teacher's rows of a step change places at random.
        """
        theirs = self.dataset.teacher_tokenizer
        assert theirs is not None
        prefixes: tuple[bytes, ...] = ()
        if isinstance(transform, VocabularyColumns):
            transform.fit(self.dataset.tokenizer.token_bytes(), theirs.token_bytes())
            self._columns, prefixes = transform, transform.prefixes
        self.alignment = Alignment(self.train, other["train"], prefixes)
        self.shuffled, self.teacher_vocabulary = shuffled, theirs.size
        # The teacher is judged with as much context as it has in most of the student's windows.
        context = max(2, int(self.alignment.lengths.median()))
        self._judged = Windows(other["test"].stream, context, max(1, context // 2))
        share = self._share_of_pairs()
        self.notes = (
            *self.notes,
            f"the teacher cuts the text into {theirs.size:,} other tokens, some {context} in a "
            f"window; {share:.0%} of the student's rows have a partner among its rows",
        )

    def _share_of_pairs(self) -> float:
        """The share of the training rows that have a partner, in up to 256 windows."""
        some = torch.arange(len(self.train))[:: max(1, len(self.train) // 256)]
        return len(self.alignment.pairs(some).rows) / int(self.train.rows[some].sum())

    def rows(self, student: Any, teacher: Any, batch: Batch) -> Rows:
        """See `Task`: the pairs, and the cross-entropy of all other rows of the student."""
        if teacher is None:
            return super().rows(student, teacher, batch)
        targets = self.on_device(batch.targets[batch.targets != IGNORED])
        logits = student(batch.inputs)[:, : self.vocabulary].float()
        pairs = self.alignment.pairs(batch.indices)
        theirs = self.teacher_rows(teacher, pairs, batch.indices)
        rows = self.on_device(pairs.rows)
        alone = torch.ones_like(targets, dtype=torch.bool).index_fill_(0, rows, False)
        # The Distiller multiplies by pairs / total: the sum over the other rows is left.
        unpaired = (cross_entropy_rows(logits, targets) * alone).sum() / max(1, len(rows))
        return Rows(
            logits[rows],
            theirs,
            targets[rows],
            other_losses={"ce_unpaired": unpaired},
            total=batch.rows,
            teacher_targets=self.on_device(pairs.targets),
        )

    def teacher_rows(self, teacher: Any, pairs: Pairs, windows: Tensor) -> Tensor:
        """The teacher's rows of the pairs, [M, columns]."""
        one = bool((pairs.documents == pairs.documents[:, :1]).all())
        documents = None if one else self.on_device(pairs.documents)
        kept = self.on_device(pairs.partners)
        inputs = TokenInputs(self.on_device(pairs.ids), documents, kept)
        logits: Tensor = teacher.compute(inputs)[:, : self.teacher_vocabulary]
        if self._columns is not None:
            logits = self._columns.of_teacher(logits, self.on_device(pairs.prefixes))
        if self.shuffled:
            drawn = generator(self.seed, "shuffled rows", *windows.tolist())
            logits = logits[self.on_device(torch.randperm(len(logits), generator=drawn))]
        return logits

    def kinds(self, batch: Batch) -> Mapping[str, Kind]:
        """See `Task`: the kinds of the rows that have a partner."""
        rows = self.alignment.pairs(batch.indices).rows
        found = super().kinds(batch).items()
        return {name: Kind(groups[rows], names) for name, (groups, names) in found}

    def evaluate_student(self, student: nn.Module, teacher: Any) -> dict[str, float]:
        """See `Task`: as for a student alone, since no rows of the teacher are the same columns."""
        return super().evaluate_student(student, None)

    def evaluate_teacher(self, teacher: nn.Module) -> dict[str, float]:
        """See `Task`: in the teacher's own tokens. Bits per byte can be compared."""
        teacher.eval()
        with torch.inference_mode():
            measured = language_metrics(
                teacher, None, self, self._judged, vocabulary=self.teacher_vocabulary
            )
        return {f"test_{key}": value for key, value in measured.items()}

    def data_fingerprint(self) -> str:
        """See `Task`: of the student's tokens and the teacher's."""
        theirs = self.dataset.teacher_tokenizer
        assert theirs is not None
        return digest(super().data_fingerprint().encode(), theirs.fingerprint().encode())
