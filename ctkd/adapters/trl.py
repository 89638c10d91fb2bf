"""CTKD in trl: `CTKDGKDTrainer` and `CTKDDistillationTrainer`, on the student's own completions."""

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler
from trl import DistillationTrainer
from trl.experimental.gkd import GKDTrainer
from trl.models.utils import unwrap_model_for_generation

from ctkd.adapters.trainer_policy import PolicyMixin
from ctkd.adapters.transformers import CTKDMixin
from ctkd.checks import expect
from ctkd.distiller import Distiller
from ctkd.engine.hidden_rows import Head, HiddenRows
from ctkd.errors import ConfigError
from ctkd.models.hugging_face import AFTER_HEAD


class CTKDGKDTrainer(CTKDMixin, GKDTrainer):  # type: ignore[misc]
    """GKDTrainer with the game as its loss; `beta` of its settings has no effect.

    `temperature` of its settings is that of sampling, as in GKDTrainer. A step's completions are
    sampled before its first part, so that the tokens of the whole step are known.
    """

    def __init__(self, *args: Any, distiller: Distiller, **kwargs: Any) -> None:
        """Takes the arguments of GKDTrainer and of `CTKDMixin`."""
        super().__init__(*args, distiller=distiller, **kwargs)
        self._parts: list[Any] = []
        self._sampled = True
        if self.lmbda == 1.0:
            check_own_completions(distiller, "lmbda = 1")

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """See `CTKDMixin`; keeps the parts, for their completions."""
        found = super().get_batch_samples(epoch_iterator, num_batches, device)
        # Not yet sampled: a resumed run loads its random state after this call.
        self._parts, self._sampled = list(found[0]), False
        return found

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """A part of a step, with the completions that were sampled for it."""
        if not self._sampled:
            self._parts = [self.with_completions(model, part) for part in self._parts]
            self.count_rows(self._parts, self.args.device)
            self._sampled = True
        part = self._parts.pop(0)
        return super(GKDTrainer, self).training_step(model, part, num_items_in_batch)

    def with_completions(self, model: Any, batch: Any) -> Any:
        """With probability `lmbda` the student's completions, with `seq_kd` else the teacher's."""
        batch = self._prepare_inputs(batch)
        own = random.random() <= self.lmbda
        if not own and not self.seq_kd:
            return batch
        source = model if own else self.teacher_model
        settings = {"generation_kwargs": self.generation_kwargs}
        with unwrap_model_for_generation(source, self.accelerator, **settings) as network:
            ids, mask, labels = self.generate_on_policy_outputs(
                network, batch, self.generation_config
            )
        return {**batch, "input_ids": ids, "attention_mask": mask, "labels": labels}


class CTKDDistillationTrainer(PolicyMixin, DistillationTrainer):  # type: ignore[misc]
    """DistillationTrainer with the game as its loss; `beta` has an effect in evaluation only.

    `temperature` of its settings is that of sampling. Logits are made for `block` rows at a time.
    """

    def __init__(self, *args: Any, distiller: Distiller, block: int = 256, **kwargs: Any) -> None:
        """Takes the arguments of DistillationTrainer and of `PolicyMixin`."""
        expect(block > 0, "CTKDDistillationTrainer", "block", block, "a whole number > 0")
        check_own_completions(distiller, "DistillationTrainer")
        super().__init__(*args, distiller=distiller, **kwargs)
        self.block = block
        if self._is_vlm:
            raise ConfigError("a model of images and text is not supported: use CTKDGKDTrainer")
        for whose, model in (("student", self.model), ("teacher", self.teacher_model)):
            check_linear_head(self.accelerator.unwrap_model(model), whose)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """As the Trainer's; a resumed run goes on in the order of an uninterrupted one."""
        return _OrderOfEpoch(super()._get_train_sampler(dataset), self)

    def _compute_loss(
        self, unwrapped_student: Any, inputs: Any, num_items_in_batch: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, sum of the student's entropies, rows); the entropy is not measured in training."""
        if not self.model.training:
            found: tuple[Tensor, Tensor, Tensor] = super()._compute_loss(
                unwrapped_student, inputs, num_items_in_batch
            )
            return found
        self.follow_run()
        mask = inputs["completion_mask"]
        kept = (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).bool()
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attended = torch.cat([inputs["prompt_mask"], mask], dim=1)
        given = (ids, attended, mask.shape[1])
        teacher = self.accelerator.unwrap_model(self.teacher_model.eval())
        states, head = (
            self._get_last_hidden_state(unwrapped_student, *given),
            _head(unwrapped_student),
        )
        with torch.no_grad():
            theirs, their_head = self._get_last_hidden_state(teacher, *given), _head(teacher)
        rows = HiddenRows(
            states[kept].to(head.weight),
            theirs[kept].to(their_head.weight),
            inputs["completion_ids"][kept].to(head.weight.device),
            student_head=head,
            teacher_head=their_head,
            block=self.block,
        )
        loss = self.policy_steps.loss_in_blocks(rows, num_items_in_batch)
        return loss, torch.zeros_like(loss), kept.sum()

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the Trainer's, without the entropy, which is not measured."""
        self._metrics["train"].pop("entropy", None)
        super().log(logs, *args, **kwargs)


class _OrderOfEpoch(Sampler[int]):
    """A sampler of trl with an order of (seed, epoch).

    Its own generator goes on from epoch to epoch, and starts again in a resumed run.
    """

    def __init__(self, sampler: Any, trainer: Any) -> None:
        self._sampler, self._trainer = sampler, trainer

    def __iter__(self) -> Iterator[int]:
        if self._sampler.shuffle:
            epoch = int(self._trainer.state.epoch or 0)
            self._sampler.generator.manual_seed(self._sampler.seed + epoch)
        return iter(self._sampler)

    def __len__(self) -> int:
        return len(self._sampler)


def _head(model: Any) -> Head:
    layer = model.get_output_embeddings()
    return Head(layer.weight, layer.bias)


def check_linear_head(model: Any, whose: str) -> None:
    """Raises ConfigError where logits are changed after a linear head."""
    config = model.config.get_text_config()
    names = (*AFTER_HEAD, "output_multiplier")
    changed = [name for name in names if getattr(config, name, None) not in (None, 1)]
    if changed:
        raise ConfigError(
            f"the {whose} changes its logits after the head ({', '.join(changed)}): use "
            "CTKDGKDTrainer, which takes the logits of the model itself"
        )


def check_own_completions(distiller: Distiller, what: str) -> None:
    """Raises ConfigError for a weight of cross-entropy to tokens that the student sampled."""
    weight = distiller.weights(0.0).get("ce", 0.0)
    if weight > 0:
        raise ConfigError(
            f"{what} trains on the student's own completions, and cross-entropy to them "
            f"(ce_weight = {weight}) teaches what the student already does: set ce_weight = 0"
        )
