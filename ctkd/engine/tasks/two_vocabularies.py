"""The language task with a teacher that cuts the text into other tokens than the student.

Rows of both networks are paired where their tokens end at the same byte. The game is played on the
pairs. The student's other rows have cross-entropy only, with weight 1.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ctkd.data.dataset import digest
from ctkd.data.text.alignment import Alignment, OtherText, Pairs
from ctkd.data.text.chunks import chunks_of
from ctkd.data.text.windows import IGNORED, Windows
from ctkd.distiller import Distiller
from ctkd.engine.task import Batch, Kind, Rows
from ctkd.engine.tasks.alignment_settings import TeacherRowsSettings
from ctkd.engine.tasks.language import LanguageTask
from ctkd.engine.tasks.language_metrics import language_metrics
from ctkd.losses.alm import chunk_rows
from ctkd.losses.columns import VocabularyColumns
from ctkd.losses.fitting_parts import check_columns
from ctkd.losses.per_row import cross_entropy_rows
from ctkd.losses.prefix_bytes import PrefixBytes
from ctkd.models.language_model import TokenInputs
from ctkd.seeds import generator

SOME = 16  # windows in which the share of pairs and the mass of ends are measured


class TwoVocabularies(LanguageTask):
    """Windows of text; the game is played on the rows where both tokenizations end.

    Attributes:
        alignment: of the training windows.
    """

    shuffled = in_chunks = False
    _columns: VocabularyColumns | None = None

    def align(
        self,
        other: Mapping[str, OtherText],
        distiller: Distiller,
        settings: TeacherRowsSettings | None = None,
    ) -> None:
        """Pairs the rows of all training windows.

        Args:
            other: "train" and "test" in the teacher's tokens.
            distiller: its transform takes the tokens of both vocabularies.
            settings: what is done to the teacher's rows.
        """
        theirs, transform = self.dataset.teacher_tokenizer, distiller.transform
        assert theirs is not None
        prefixes: tuple[bytes, ...] = ()
        if isinstance(transform, VocabularyColumns):
            transform.fit(self.dataset.tokenizer.token_bytes(), theirs.token_bytes())
            transform.teacher_is_made = True
            self._columns, prefixes = transform, transform.prefixes
            check_columns(distiller.policy, distiller.objective, transform)
        self.in_chunks = bool(getattr(distiller.objective, "in_chunks", False))
        self.alignment = Alignment(self.train, other["train"], prefixes)
        self.shuffled = settings is not None and settings.shuffled
        self.teacher_vocabulary = theirs.size
        # The teacher is judged with as much context as it has in most of the student's windows.
        context = max(2, int(self.alignment.lengths.median()))
        self._judged = Windows(other["test"].stream, context, max(1, context // 2))
        self._some = torch.arange(len(self.train))[:: max(1, len(self.train) // SOME)][:SOME]
        share = len(self.alignment.pairs(self._some).rows) / self._rows(self._some)
        self.notes = (
            *self.notes,
            f"the teacher cuts the text into {theirs.size:,} other tokens, some {context} in a "
            f"window; {share:.0%} of the student's rows have a partner among its rows",
        )

    def rows(self, student: Any, teacher: Any, batch: Batch) -> Rows:
        """See `Task`: the pairs, and the cross-entropy of all other rows of the student."""
        if teacher is None:
            return super().rows(student, teacher, batch)
        targets = self.on_device(batch.targets[batch.targets != IGNORED])
        logits = student(batch.inputs)[:, : self.vocabulary].float()
        pairs = self.alignment.pairs(batch.indices)
        if self.in_chunks:
            return self._chunk_rows(logits, targets, teacher, pairs, batch)
        theirs = self.teacher_rows(teacher, pairs, batch.indices)
        rows = self.on_device(pairs.rows)
        alone = torch.ones_like(logits[:, 0]).index_fill_(0, rows, 0.0)
        return Rows(
            logits[rows],
            theirs,
            targets[rows],
            other_losses=_unpaired(cross_entropy_rows(logits, targets) * alone, len(rows)),
            total=batch.rows,
            teacher_targets=self.on_device(pairs.targets),
        )

    def _chunk_rows(
        self, logits: Tensor, targets: Tensor, teacher: Any, pairs: Pairs, batch: Batch
    ) -> Rows:
        """A row for each chunk of text that both networks can name, and what lies outside."""
        chunks = chunks_of(pairs, len(targets))
        theirs = self.computed(teacher, pairs, chunks.partners, batch.indices)
        nats = cross_entropy_rows(theirs, self.on_device(chunks.targets))
        of_teacher = nats.new_zeros(chunks.size).index_add(0, self.on_device(chunks.teacher), nats)
        ours = cross_entropy_rows(logits, targets)
        place = self.on_device(chunks.student)
        sums = ours.new_zeros(chunks.size + 1).index_add(0, place, ours)  # the last: no chunk
        none = torch.zeros(chunks.size, dtype=torch.int64, device=targets.device)
        return Rows(
            chunk_rows(sums[:-1]),
            self.shuffle(chunk_rows(of_teacher), batch.indices),
            none,
            other_losses=_unpaired(sums[-1:], chunks.size),
            total=batch.rows,
            teacher_targets=none,
        )

    @property
    def teacher_context(self) -> int:
        """See `LanguageTask`: in the window with the most; others are padded."""
        return int(self.alignment.lengths.max())

    def teacher_tokens(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See `LanguageTask`."""
        return self.alignment.tokens(indices, self.teacher_context)

    def computed(self, teacher: Any, pairs: Pairs, kept: Tensor, windows: Tensor) -> Tensor:
        """The teacher's logits at some of its inputs, [R, C_t]; `kept` are indices among B · L."""
        if teacher.windows is not None:
            width = pairs.ids.shape[1]
            at = self.on_device(kept // width * self.teacher_context + kept % width)
            return cast(Tensor, teacher.windows.rows_of(teacher.numbers_of(windows)[at]))
        one = bool((pairs.documents == pairs.documents[:, :1]).all())
        documents = None if one else self.on_device(pairs.documents)
        inputs = TokenInputs(self.on_device(pairs.ids), documents, self.on_device(kept))
        logits: Tensor = teacher.compute(inputs)[:, : self.teacher_vocabulary]
        return logits

    def teacher_rows(self, teacher: Any, pairs: Pairs, windows: Tensor) -> Tensor:
        """The teacher's rows of the pairs, [M, columns]."""
        logits = self.computed(teacher, pairs, pairs.partners, windows)
        if self._columns is not None:
            logits = self._columns.of_teacher(logits, self.on_device(pairs.prefixes))
        return self.shuffle(logits, windows)

    def shuffle(self, rows: Tensor, windows: Tensor) -> Tensor:
        """The rows, in an order drawn from (seed, windows) if the settings say so."""
        if not self.shuffled:
            return rows
        drawn = generator(self.seed, "shuffled rows", *windows.tolist())
        return rows[self.on_device(torch.randperm(len(rows), generator=drawn))]

    def kinds(self, batch: Batch) -> Mapping[str, Kind]:
        """See `Task`: the kinds of the rows that have a partner."""
        pairs = self.alignment.pairs(batch.indices)
        rows = pairs.rows[pairs.follows] if self.in_chunks else pairs.rows
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
            if isinstance(self._columns, PrefixBytes) and self._columns.prefixes:
                measured["prefix_ends"] = self._ends(teacher, self._columns)
        return {f"test_{key}": value for key, value in measured.items()}

    def _ends(self, teacher: nn.Module, columns: PrefixBytes) -> float:
        """Of the rows after a prefix, the mean mass of the tokens that end there, in percent."""
        columns.to(self.device)
        pairs = self.alignment.pairs(self._some)
        after = pairs.prefixes > 0
        given = (pairs.ids, pairs.documents, pairs.partners[after])
        logits = teacher(TokenInputs(*map(self.on_device, given)))[:, : self.teacher_vocabulary]
        masses = columns.mass_of_ends(logits, self.on_device(pairs.prefixes[after]))
        return 100 * masses.mean().item()

    def data_fingerprint(self) -> str:
        """See `Task`: of the student's tokens and the teacher's."""
        theirs = self.dataset.teacher_tokenizer
        assert theirs is not None
        return digest(super().data_fingerprint().encode(), theirs.fingerprint().encode())


def _unpaired(losses: Tensor, rows: int) -> dict[str, Tensor]:
    """The term of the student's other rows: the Distiller multiplies it by rows / total."""
    return {"ce_unpaired": losses.sum() / max(1, rows)}
