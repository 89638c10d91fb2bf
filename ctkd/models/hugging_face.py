"""Causal language models of Hugging Face's transformers, as teacher or student."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ctkd.checks import expect
from ctkd.errors import ConfigError
from ctkd.models.dropped_layers import drop
from ctkd.models.language_model import LanguageModel, TokenInputs, rows_of
from ctkd.registry import MODELS

# Settings of a model that change logits after the head; a plain linear head ignores them.
AFTER_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


class HuggingFaceLM(LanguageModel):
    """A transformers model: its body gives states, its output embedding is the head.

    Attributes:
        loaded_from: the folder or name whose weights it has; None for random ones.
        tokenizer_file: the path of the `tokenizer.json` that it was trained with, if it has one.
    """

    def __init__(self, network: Any, loaded_from: str | None, tokenizer_file: str | None) -> None:
        """Takes the model. Raises ConfigError if its logits do not come from a linear head."""
        super().__init__()
        self.network, self.loaded_from = network, loaded_from
        self.tokenizer_file = tokenizer_file
        self.vocabulary = network.get_output_embeddings().weight.shape[0]
        settings = {name: getattr(network.config, name, None) for name in AFTER_HEAD}
        changed = [name for name, value in settings.items() if value not in (None, 1)]
        if changed:
            raise ConfigError(
                f"{type(network).__name__} changes its logits after the head "
                f"({', '.join(changed)}), which is not supported: choose a model with a linear head"
            )

    def hidden(self, tokens: TokenInputs) -> Tensor:
        """See `LanguageModel`; positions restart with each document."""
        given: dict[str, Any] = {}
        if tokens.documents is not None:
            states = self.head()[0]
            given["attention_mask"] = additive_mask(tokens.documents).to(states.dtype)
            given["position_ids"] = positions(tokens.documents)
        found = self.network.base_model(input_ids=tokens.ids, use_cache=False, **given)
        return rows_of(found.last_hidden_state, tokens)

    def head(self) -> tuple[Tensor, Tensor | None]:
        """See `LanguageModel`."""
        layer = self.network.get_output_embeddings()
        return layer.weight, getattr(layer, "bias", None)


def additive_mask(documents: Tensor) -> Tensor:
    """[B, L] -> [B, 1, L, L]: 0 if a token attends to another, otherwise the lowest number."""
    same = (documents[:, None, :, None] == documents[:, None, None, :]).tril()
    return torch.zeros(same.shape, device=same.device).masked_fill(
        ~same, torch.finfo(torch.float32).min
    )


def positions(documents: Tensor) -> Tensor:
    """[B, L]: the position of each token in the part of its document in the window."""
    indices = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return indices - indices.where(begins, indices.new_zeros(())).cummax(1).values


@MODELS.register
def hf_causal_lm(
    path: str | None = None,
    gguf_file: str | None = None,
    pretrained: bool = True,
    dropped: Sequence[int] = (),
) -> nn.Module:
    """Any causal language model of transformers, by its folder or name.

    Args:
        path: a folder, or a name on the hub, which is downloaded.
        gguf_file: the file in the folder, where the weights are a GGUF file.
        pretrained: False takes the architecture alone, with random weights.
        dropped: numbers of layers to leave out, from 0: a smaller student from its own teacher.
    """
    return _made("hf_causal_lm", path, gguf_file, pretrained, dropped)


@MODELS.register
def hf_teacher(
    path: str | None = None, gguf_file: str | None = None, pretrained: bool = True
) -> nn.Module:
    """`hf_causal_lm` under a second name, so that a teacher has separate settings."""
    return _made("hf_teacher", path, gguf_file, pretrained, ())


@MODELS.register
def drop_layers(
    path: str | None = None, gguf_file: str | None = None, dropped: Sequence[int] = (1,)
) -> nn.Module:
    """A student made of a pre-trained model without some of its layers (as in Minitron)."""
    expect(len(dropped) > 0, "drop_layers", "dropped", dropped, "the numbers of layers, from 0")
    return _made("drop_layers", path, gguf_file, True, dropped)


def _made(
    owner: str, path: str | None, gguf_file: str | None, pretrained: bool, dropped: Sequence[int]
) -> HuggingFaceLM:
    """Builds the model: on the meta device from its configuration alone."""
    expect(path is not None, owner, "path", None, "a folder of a model, or a name on the hub")
    transformers = _library(owner)
    given = {} if gguf_file is None else {"gguf_file": gguf_file}
    name, kind = os.path.expanduser(str(path)), transformers.AutoModelForCausalLM
    try:
        if pretrained and torch.get_default_device().type != "meta":
            network = kind.from_pretrained(name, dtype=torch.float32, **given)
        else:
            network = kind.from_config(transformers.AutoConfig.from_pretrained(name, **given))
    except (OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(f"{owner}.path = {path!r}: no causal language model: {reason}") from error
    drop(network, dropped, owner)
    return HuggingFaceLM(network, name if pretrained else None, _tokenizer_file(name))


def _tokenizer_file(name: str) -> str | None:
    from transformers.utils.hub import cached_file

    try:
        return cached_file(name, "tokenizer.json")  # type: ignore[no-any-return]
    except OSError:
        return None


def _library(owner: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            f"{owner} needs the package `transformers`: pip install 'ctkd[language]'"
        ) from error
    return transformers
