"""The base classes of text data sets: a tokenizer, a context, splits by document."""

import abc
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ctkd.checks import expect
from ctkd.data.dataset import Dataset, data_path
from ctkd.data.text.alignment import OtherText, other_text
from ctkd.data.text.documents import Document, split_documents
from ctkd.data.text.tokenizer import BPETokenizer, Tokenizer, make_tokenizer
from ctkd.data.text.windows import Windows, stream_of
from ctkd.errors import ConfigError

# The components that compare two vocabularies, for messages.
COLUMNS = (
    "Method.transform = @SharedColumns, @SortedColumns or @PrefixBytes, or Method.objective = @ALM"
)


@dataclass(frozen=True)
class TextSplits:
    """The windows of each split; those of validation and test overlap.

    Attributes:
        evaluated: "test", and "validation" where there is one.
        notes: sentences for the user.
        teacher: "train" and "test" in the teacher's tokens, where its vocabulary is another one.
    """

    train: Windows
    evaluated: dict[str, Windows]
    notes: tuple[str, ...] = ()
    teacher: dict[str, OtherText] | None = None


class TextDataset(Dataset):
    """Documents of text.

    Attributes:
        context: tokens of a window.
        stride: new tokens of a window in an evaluation.
        tokenizer: text to tokens.
        teacher_tokenizer: the teacher's, where its vocabulary is another one; else None.
        tag_names: the classes of words, where the data set knows them.
    """

    kind = "text"
    owner: ClassVar[str]
    tag_names: Sequence[str] = ()
    teacher_tokenizer: Tokenizer | None = None

    def __init__(
        self,
        context: int,
        tokenizer: str,
        vocabulary: int,
        stride: int | None,
        test: float,
        validation: float,
    ) -> None:
        """See the data sets. Raises ConfigError for a value out of range."""
        owner = self.owner
        expect(context >= 2, owner, "context", context, "a number of tokens, 2 or more")
        expect(vocabulary >= 257, owner, "vocabulary", vocabulary, "a number of tokens above 256")
        fine = stride is None or 1 <= stride <= context
        expect(fine, owner, "stride", stride, f"None or a number from 1 to context = {context}")
        expect(0 < test < 0.5, owner, "test", test, "a share above 0 and below 0.5")
        fine = 0 <= validation < 0.5
        expect(fine, owner, "validation", validation, "a share of 0 or more, and below 0.5")
        self.context, self._test, self._validation = context, test, validation
        self.stride = max(1, context // 2) if stride is None else stride
        self.tokenizer: Tokenizer = make_tokenizer(tokenizer, vocabulary, owner)

    @property
    def num_classes(self) -> int:  # type: ignore[override]
        """The number of tokens of the vocabulary."""
        return self.tokenizer.size

    @property
    def teacher_offers(self) -> dict[str, object]:
        """See `Dataset`."""
        return {"num_classes": (self.teacher_tokenizer or self.tokenizer).size}

    def check_teacher(self, other: Dataset) -> None:
        """See `Dataset`: the teacher's documents and tokens must be those of this run."""
        if not isinstance(other, TextDataset):
            return
        expected, found = self.teacher_tokenizer or self.tokenizer, other.tokenizer
        compared: dict[str, tuple[object, object]] = {
            "the tokenizer": (expected.named, found.named)
        }
        if isinstance(expected, BPETokenizer):  # it is trained on the training documents
            compared["the data set"] = self.owner, other.owner
            compared["the test share"] = self._test, other._test
            compared["the validation share"] = self._validation, other._validation
        for name, (here, there) in compared.items():
            if here != there:
                raise ConfigError(
                    f"the teacher's tokens differ: {name} is {there} in Teacher.run, and {here} "
                    "in this run. Give both runs the same text and shares. For a teacher with "
                    f"another vocabulary set Alignment.tokenizer and a transform: {COLUMNS}"
                )

    @abc.abstractmethod
    def documents(self) -> Sequence[Document]:
        """Reads the documents. Raises DataError where they are missing or damaged."""

    def load(self) -> TextSplits:
        """Reads, splits and encodes the documents. Raises DataError."""
        splits = split_documents(self.documents(), self._test, self._validation)
        self.tokenizer.fit(splits.train)
        train = stream_of(splits.train, self.tokenizer)
        evaluated = {"test": splits.test, "validation": splits.validation}
        streams = {name: stream_of(d, self.tokenizer) for name, d in evaluated.items() if d}
        counts = [f"{len(splits.train):,} documents of {len(train):,} tokens for training"]
        counts += [
            f"{len(evaluated[name]):,} of {len(stream):,} for {name}"
            for name, stream in streams.items()
        ]
        teacher = None
        if self.teacher_tokenizer is not None:
            self.teacher_tokenizer.fit(splits.train)
            both = {"train": splits.train, "test": splits.test}
            made = self.teacher_tokenizer
            teacher = {name: other_text(d, stream_of(d, made)) for name, d in both.items()}
        least = self.context - self.stride
        return TextSplits(
            Windows(train, self.context),
            {name: Windows(stream, self.context, self.stride) for name, stream in streams.items()},
            (
                f"text: {', '.join(counts)}; a vocabulary of {self.num_classes:,}",
                f"each token is evaluated once, after {least} to {self.context - 1} tokens of its "
                "document, or all there are",
            ),
            teacher,
        )


class SuppliedText(TextDataset):
    """Text that the user supplies, in a file or a folder.

    Attributes:
        data_dir: its path, as it was given.
        environment: the variable that has the path where `data_dir` is None.
    """

    environment: ClassVar[str]
    data_dir: str | None = None

    @property
    def path(self) -> pathlib.Path | None:
        """The file or the folder; None where neither setting nor variable names one."""
        return data_path(self.data_dir, self.environment, self.owner)

    @property
    def folder(self) -> pathlib.Path | None:
        """See `Dataset`."""
        path = self.path
        return path.parent if path is not None and path.is_file() else path
