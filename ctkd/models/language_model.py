"""The interface of a language model: tokens in, one row of logits for each row that counts."""

import abc
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F


class TokenInputs(NamedTuple):
    """Windows of tokens.

    Attributes:
        ids: [B, L].
        documents: [B, L], the document of each token; tokens attend only within their document.
            None if every window has one document.
        kept: [N], indices of the rows that count among the B · L positions; None for all.
    """

    ids: Tensor
    documents: Tensor | None = None
    kept: Tensor | None = None


class LanguageModel(nn.Module, abc.ABC):
    """A causal network whose linear head can be applied to a few rows at a time.

    Attributes:
        vocabulary: columns of a row of logits, padding included.
        loaded_from: the source of the weights, if the network is built with weights; else None.
        tokenizer_file: the `tokenizer.json` that belongs to these weights, if there is one.
    """

    vocabulary: int
    loaded_from: str | None = None
    tokenizer_file: str | None = None

    @abc.abstractmethod
    def hidden(self, tokens: TokenInputs) -> Tensor:
        """The state of each row that counts, [N, width]: the input of the head."""

    @abc.abstractmethod
    def head(self) -> tuple[Tensor, Tensor | None]:
        """The weight [vocabulary, width] of the head, and its bias [vocabulary] or None."""

    def forward(self, tokens: TokenInputs, with_head: bool = True) -> Tensor:
        """Logits [N, vocabulary] of the rows that count; without the head, the states."""
        states = self.hidden(tokens)
        return F.linear(states, *self.head()) if with_head else states


def rows_of(states: Tensor, tokens: TokenInputs) -> Tensor:
    """[B, L, width] -> [N, width], the rows that count."""
    flat = states.flatten(0, 1)
    return flat if tokens.kept is None else flat[tokens.kept]
