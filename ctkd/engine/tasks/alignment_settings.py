"""A teacher with another vocabulary than the student's: its tokenizer, and what must fit."""

from dataclasses import dataclass

import torch

from ctkd.checks import expect
from ctkd.data.dataset import Dataset
from ctkd.data.text.text_dataset import COLUMNS, TextDataset
from ctkd.data.text.tokenizer import ByteTokenizer, make_tokenizer
from ctkd.distiller import Distiller
from ctkd.engine.config.settings import PARTS
from ctkd.errors import ConfigError
from ctkd.losses.columns import SortedColumns, VocabularyColumns
from ctkd.losses.fitting_parts import check_columns
from ctkd.losses.prefix_bytes import PrefixBytes


@PARTS.register("Alignment")
@dataclass(frozen=True)
class AlignmentSettings:
    """The tokenizer of a teacher whose vocabulary is not the student's.

    Attributes:
        tokenizer: as of the data set: 'bytes', 'bpe', or the path of a tokenizer.json.
        vocabulary: the number of tokens of 'bpe'.
    """

    tokenizer: str | None = None
    vocabulary: int = 4096

    def __post_init__(self) -> None:
        wanted = "'bytes', 'bpe' or the path of a tokenizer.json, the teacher's"
        expect(bool(self.tokenizer), "Alignment", "tokenizer", self.tokenizer, wanted)
        fine = self.vocabulary >= 257
        expect(fine, "Alignment", "vocabulary", self.vocabulary, "a number of tokens above 256")


@PARTS.register("TeacherRows", settings="method")
@dataclass(frozen=True)
class TeacherRowsSettings:
    """What is done to the teacher's rows before the student sees them.

    Attributes:
        shuffled: whether the teacher's rows of a step get a random order: the control of a study,
            which must not help.
        draws: tokens for each row, of Teacher.rows = 'sampled'.
    """

    shuffled: bool = False
    draws: int = 64

    def __post_init__(self) -> None:
        expect(self.draws >= 1, "TeacherRows", "draws", self.draws, "a number of 1 or more")


def align(dataset: Dataset, settings: AlignmentSettings | None) -> None:
    """Gives the data set the teacher's own tokenizer, if any. Raises ConfigError for images."""
    if settings is None:
        return
    if not isinstance(dataset, TextDataset):
        raise ConfigError(
            "Alignment is for text: remove its settings, or set Recipe.dataset to text"
        )
    assert settings.tokenizer is not None
    dataset.teacher_tokenizer = make_tokenizer(settings.tokenizer, settings.vocabulary, "Alignment")


def has_two_vocabularies(dataset: Dataset) -> bool:
    """Whether the teacher has a tokenizer of its own."""
    return isinstance(dataset, TextDataset) and dataset.teacher_tokenizer is not None


def check_alignment(distiller: Distiller, dataset: Dataset, block: int | None) -> None:
    """Raises ConfigError where the game cannot be played on rows of two vocabularies."""
    transform, objective = distiller.transform, distiller.objective
    in_chunks = bool(getattr(objective, "in_chunks", False))
    if in_chunks and not has_two_vocabularies(dataset):
        raise ConfigError(
            f"{type(objective).__name__} compares chunks of text that two tokenizers cut: set "
            "Alignment.tokenizer to the teacher's, or another Method.objective"
        )
    if not isinstance(dataset, TextDataset) and getattr(transform, "needs_tokens", False):
        name = type(transform).__name__
        raise ConfigError(f"{name} compares vocabularies of text: set Method.transform = None")
    _check_columns(distiller, dataset)
    if not isinstance(dataset, TextDataset):
        return
    if not has_two_vocabularies(dataset) or not distiller.needs_teacher:
        return
    if not (in_chunks or isinstance(transform, (VocabularyColumns, SortedColumns))):
        raise ConfigError(
            f"the teacher has another vocabulary (Alignment.tokenizer), and nothing compares the "
            f"two: set {COLUMNS}"
        )
    if block is not None:
        raise ConfigError(f"Language.block = {block}: two vocabularies need None")
    if len(distiller.features):
        raise ConfigError("feature losses need rows of one vocabulary: set Method.features = ()")
    _check_policy(distiller, 2 if in_chunks else 5)


def _check_columns(distiller: Distiller, dataset: Dataset) -> None:
    """As `check_columns`, before the tokens of both vocabularies are read."""
    transform = distiller.transform
    if isinstance(transform, PrefixBytes):
        moved = dataset.num_classes != ByteTokenizer.size  # a byte has its own number as the column
    else:  # one vocabulary shares all columns
        moved = has_two_vocabularies(dataset) and isinstance(transform, VocabularyColumns)
    check_columns(distiller.policy, distiller.objective, transform, moved)


def check_shuffled(settings: TeacherRowsSettings | None, dataset: Dataset) -> None:
    """Raises ConfigError where the control would have no effect."""
    if settings is not None and settings.shuffled and not has_two_vocabularies(dataset):
        raise ConfigError(
            "TeacherRows.shuffled = True is a control for two vocabularies, and this run has one: "
            "set Alignment.tokenizer to the teacher's, or TeacherRows.shuffled = False"
        )


def _check_policy(distiller: Distiller, columns: int) -> None:
    """Raises ConfigError where the policy is made for rows of the student's vocabulary."""
    if distiller.policy is None:
        return
    logits = torch.zeros(2, columns)
    try:
        with torch.no_grad():
            distiller.temperature_of(logits, logits, torch.zeros(2, dtype=torch.long))
    except ValueError as error:
        raise ConfigError(
            f"{type(distiller.policy).__name__} is made for rows of one vocabulary: {error}. Set "
            "Method.policy = @GlobalTemperature or @TokenTemperature"
        ) from error
