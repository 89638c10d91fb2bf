"""Rows of logits from the batches and outputs of Hugging Face models."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ctkd.errors import ConfigError

IGNORED = -100  # the label of a token that does not count
ALIGNED = ("ForTokenClassification", "ForMaskedLM")  # labels stand at their own logits


def shifts_labels(model: Any) -> bool:
    """Whether a model's logits i predict the label i + 1, as those of causal models do.

    Raises:
        ConfigError: the kind of the model is unknown.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = type(model).__name__
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return False
    if any(part in name for part in ALIGNED):
        return False
    if name in CAUSAL.values() or getattr(model, "loss_type", None) == "ForCausalLM":
        return True
    raise ConfigError(
        f"{name} is not known as a causal model: pass shift_labels = True if its logits predict "
        "the next token's label, otherwise False"
    )


def targets_of(batch: Mapping[str, Any], shift: bool) -> Tensor:
    """The labels of a batch, each at the index of its logits: [B] of classes or [B, L] of tokens.

    Raises:
        ConfigError: there are none, or they are not classes.
    """
    if "shift_labels" in batch:  # of a collator that packs documents
        return batch["shift_labels"]  # type: ignore[no-any-return]
    if "labels" not in batch:
        raise ConfigError(
            f"the batch has no labels, only {', '.join(batch)}: use a data collator that adds them"
        )
    labels: Tensor = batch["labels"]
    if labels.is_floating_point():
        raise ConfigError(
            f"labels of type {labels.dtype}: expected classes, in a type of whole numbers"
        )
    return labels[:, 1:] if labels.dim() == 2 and shift else labels


def inputs_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch without labels: models that get labels may leave out the logits."""
    return {name: each for name, each in batch.items() if name not in ("labels", "shift_labels")}


def logits_of(outputs: Any, model: Any, whose: str) -> Tensor:
    """The logits of a model's outputs. Raises ConfigError where there are none."""
    logits = getattr(outputs, "logits", None)
    if logits is None:
        raise ConfigError(
            f"the {whose}, {type(model).__name__}, returned no logits: switch off its fused head "
            "or loss (use_liger_kernel = False, say)"
        )
    return logits  # type: ignore[no-any-return]


def rows_of_logits(logits: Tensor, targets: Tensor, vocabulary: int | None) -> Tensor:
    """[B, L, V] or [B, C] -> [N, columns]: the rows that count, and `vocabulary` columns.

    Selecting the rows waits for the device.
    """
    if logits.dim() == 3:  # the last token's logits predict no label
        logits = logits[:, : targets.shape[1]]
    return logits[targets != IGNORED][:, :vocabulary]


def check_columns(student: Tensor, teacher: Tensor, transform: object) -> None:
    """Raises ConfigError where student and teacher have different numbers of columns."""
    if student.shape[1] != teacher.shape[1] and transform is None:
        raise ConfigError(
            f"the student's logits have {student.shape[1]} columns and the teacher's "
            f"{teacher.shape[1]}: if they share a tokenizer and one is padded, pass vocabulary = "
            "the tokenizer's size; two tokenizers need gin/language/shared_columns.gin, and other "
            "classes a transform of the Distiller"
        )


def judged(student: Tensor, teacher: Tensor | None, targets: Tensor) -> dict[str, Tensor]:
    """Sums over rows: cross-entropy `ce`, `top1`; with a teacher `agreement` and `kl` at T = 1."""
    ours = student.float().log_softmax(1)
    choice = student.argmax(1)
    found = {"ce": F.nll_loss(ours, targets, reduction="sum"), "top1": (choice == targets).sum()}
    if teacher is not None and teacher.shape == student.shape:
        theirs = teacher.float().log_softmax(1)
        found["agreement"] = (choice == teacher.argmax(1)).sum()
        found["kl"] = (theirs.exp() * (theirs - ours)).sum()
    return found
