"""Whether networks, tokenizers and settings fit together in a run on text."""

from typing import TYPE_CHECKING

from torch import nn

from ctkd.data.dataset import Dataset
from ctkd.data.text.text_dataset import COLUMNS, TextDataset
from ctkd.data.text.tokenizer import FileTokenizer, Tokenizer
from ctkd.errors import ConfigError
from ctkd.losses.fitting_parts import needs_whole_step
from ctkd.models.language_model import LanguageModel

if TYPE_CHECKING:
    from ctkd.engine.config.run import Run


def check_blocks(run: "Run") -> None:
    """Refuses blocks of rows where a loss or a policy needs all rows of a step at once."""
    game = run.distiller
    reasons = {
        f"{type(game.objective).__name__} compares rows": needs_whole_step(game.objective),
        f"{type(game.policy).__name__} needs all rows": needs_whole_step(game.policy),
        "feature losses compare rows": len(game.features) > 0,
        "two temperatures are scaled together": bool(getattr(game.policy, "two_temperatures", 0)),
    }
    for reason, holds in reasons.items():
        if holds and run.task_part.block is not None:
            raise ConfigError(f"Language.block = {run.task_part.block}: {reason}; set it to None")


def check_network(role: str, model: nn.Module, dataset: Dataset, meta: bool) -> None:
    """See `TaskSpec`: a causal network with a column for each token of the vocabulary."""
    if not isinstance(model, LanguageModel):
        raise ConfigError(
            f"the {role} is a {type(model).__name__}, no language model: choose a network such as "
            "@decoder"
        )
    assert isinstance(dataset, TextDataset)
    tokens = tokenizer_of(role, dataset).size
    if model.vocabulary < tokens:
        raise ConfigError(
            f"the {role} tells {model.vocabulary:,} tokens apart, the tokenizer makes "
            f"{tokens:,}: choose the tokenizer that the {role} was trained with"
        )
    check_tokenizer(role, model, dataset)


def check_tokenizer(role: str, model: LanguageModel, dataset: TextDataset) -> None:
    """Refuses a network whose weights belong to another vocabulary than the text's."""
    if model.loaded_from is None or model.tokenizer_file is None:
        return
    own = FileTokenizer(model.tokenizer_file, f"the tokenizer of the {role}")
    if own.vocabulary() != tokenizer_of(role, dataset).vocabulary():
        way_out = ""
        if role == "teacher":
            way_out = (
                f" for one vocabulary. For two, set Alignment.tokenizer = {model.tokenizer_file!r} "
                f"and {COLUMNS}"
            )
        raise ConfigError(
            f"the {role} {model.loaded_from} has a vocabulary of its own of {own.size:,} tokens, "
            f"and the text is cut into other tokens. Set {dataset.owner}.tokenizer = "
            f"{model.tokenizer_file!r}{way_out}"
        )


def tokenizer_of(role: str, dataset: TextDataset) -> Tokenizer:
    """The tokenizer of the text for one of the networks."""
    theirs = dataset.teacher_tokenizer if role == "teacher" else None
    return theirs or dataset.tokenizer
