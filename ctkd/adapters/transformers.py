"""CTKD in transformers: `CTKDTrainer`, or `CTKDMixin` in front of another Trainer."""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from ctkd.adapters.model_rows import (
    IGNORED,
    check_columns,
    inputs_of,
    judged,
    logits_of,
    rows_of_logits,
    shifts_labels,
    targets_of,
)
from ctkd.adapters.policy_steps import ranks
from ctkd.adapters.trainer_policy import PolicyMixin


class CTKDMixin(PolicyMixin):
    """The Distiller as the loss of a Trainer: `class Mine(CTKDMixin, SFTTrainer): pass`.

    A row is a token that has a label, or a sample of a classifier. The loss is divided by the rows
    of the whole step: all its accumulated parts and all ranks.
    """

    def __init__(
        self,
        *args: Any,
        vocabulary: int | None = None,
        shift_labels: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Takes the arguments of the Trainer, of `PolicyMixin`, and these.

        Args:
            vocabulary: columns of the logits that are used, where some are padding.
            shift_labels: whether logits i predict label i + 1; None finds out by the model's class.
        """
        super().__init__(*args, **kwargs)
        self.vocabulary, self._shift = vocabulary, shift_labels
        self._total: Tensor | float = 1.0
        self._judged: dict[str, Tensor] = {}

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """As the Trainer's: the parts of a step. Counts the rows of all of them, on all ranks."""
        samples, items = super().get_batch_samples(  # type: ignore[misc]
            epoch_iterator, num_batches, device
        )
        self.count_rows(samples, device)
        return samples, items

    def count_rows(self, samples: list[Any], device: Any) -> None:
        """Sets the divisor of the loss: the rows of these parts on all ranks, over the ranks.

        One all-reduce; the ranks average their gradients, and so each loss counts that often.
        """
        counts = [(self.targets(sample) != IGNORED).sum() for sample in samples]
        total = torch.stack(counts).sum().to(device, torch.float32) if counts else torch.ones(())
        if ranks() > 1:
            torch.distributed.all_reduce(total)
        self._total = total / ranks()

    def targets(self, batch: Any) -> Tensor:
        """The labels of a batch, each at the index of its logits."""
        if "labels" in batch and batch["labels"].dim() != 2:
            return targets_of(batch, shift=False)
        if self._shift is None and "shift_labels" not in batch:
            model = self.accelerator.unwrap_model(self.model)  # type: ignore[attr-defined]
            self._shift = shifts_labels(model)
        return targets_of(batch, bool(self._shift))

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The share of a part in the step's loss; in evaluation its mean cross-entropy."""
        targets, given = self.targets(inputs), inputs_of(inputs)
        outputs = model(**given, **self._without_cache(model))
        student = rows_of_logits(logits_of(outputs, model, "student"), targets, self.vocabulary)
        teacher = self._teacher_rows(given, targets)
        if teacher is not None:
            check_columns(student, teacher, self.policy_steps.distiller.transform)
        kept = targets[targets != IGNORED]
        if model.training:
            self.follow_run()
            loss = self.policy_steps.loss(student, teacher, kept, self._total)
        else:
            sums = judged(student, teacher, kept)
            self._judge(sums, len(kept))
            loss = sums["ce"] / max(1, len(kept))
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def _teacher_rows(self, given: dict[str, Any], targets: Tensor) -> Tensor | None:
        teacher = self.teacher_model
        if teacher is None:
            return None
        outputs = teacher.eval()(**given, **self._without_cache(teacher))
        return rows_of_logits(logits_of(outputs, teacher, "teacher"), targets, self.vocabulary)

    def _without_cache(self, model: Any) -> dict[str, bool]:
        """An argument for models that would keep keys and values of all tokens for generation."""
        inner = self.accelerator.unwrap_model(model)  # type: ignore[attr-defined]
        cached = "use_cache" in inspect.signature(inner.forward).parameters
        return {"use_cache": False} if cached else {}

    def _judge(self, sums: dict[str, Tensor], rows: int) -> None:
        """Adds sums over rows to those of the evaluation."""
        counted = {**sums, "rows": sums["ce"].new_tensor(rows)}
        for name, value in counted.items():
            self._judged[name] = self._judged.get(name, 0.0) + value.detach().double()

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's; adds `ce`, `top1`, `agreement` and `kl`, means over all rows."""
        self._judged = {}
        found = super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]
        if self._judged:
            prefix = kwargs.get("metric_key_prefix", "eval")
            sums = torch.stack(list(self._judged.values()))
            if ranks() > 1:
                torch.distributed.all_reduce(sums)
            totals = dict(zip(self._judged, sums.tolist(), strict=True))
            rows = max(1.0, totals.pop("rows"))
            percent = {"top1": 100.0, "agreement": 100.0}
            means = {k: percent.get(k, 1.0) * v / rows for k, v in totals.items()}
            found.metrics.update({f"{prefix}_{name}": mean for name, mean in means.items()})
        return found


class CTKDTrainer(CTKDMixin, Trainer):  # type: ignore[misc]
    """A transformers Trainer whose loss is the game.

    `CTKDTrainer(model, args, train_dataset=…, distiller=…, teacher_model=…)`.
    """
