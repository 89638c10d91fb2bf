"""CTKD in Lightning: `CTKDModule`, a module for any `lightning.Trainer`."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn

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
from ctkd.adapters.policy_steps import PolicySteps, check_networks, check_teacher, ranks
from ctkd.distiller import Distiller
from ctkd.errors import ConfigError

STATE = "ctkd_policy"


class CTKDModule(LightningModule):  # type: ignore[misc]
    """Student, teacher and Distiller as a LightningModule.

    Batches are pairs (inputs, classes [B]), or mappings with `labels` for models of Hugging Face;
    for others override `rows`. The gradient of a step is divided by the rows of all its
    accumulated batches and ranks, before it is clipped. The teacher is not in the checkpoints.

    Attributes:
        student: the network that is trained.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        distiller: Distiller,
        optimizer: Callable[[Any], Any],
        recipe_epochs: float | None = None,
        policy_lr: float = 0.5,
        policy_optimizer: torch.optim.Optimizer | None = None,
        vocabulary: int | None = None,
        shift_labels: bool | None = None,
    ) -> None:
        """Takes the networks.

        Args:
            optimizer: makes the student's optimizer from its parameters, or the dictionary with a
                learning-rate schedule that `configure_optimizers` may return.
            recipe_epochs: the length of the run on the scale of the schedule of λ; None for the
                epochs of the run.
            policy_lr: the rate of the policy's SGD, whose momentum is 0.9.
            policy_optimizer: another optimizer of `distiller.parameters()`.
            vocabulary: columns of the logits that are used, where some are padding.
            shift_labels: of a language model, whether logits i predict label i + 1; None finds out
                by the model's class.

        Raises:
            ConfigError: something that an adapter cannot do.
        """
        super().__init__()
        check_teacher(distiller, teacher)
        check_networks(student, teacher)
        self.student, self._optimizer = student, optimizer
        self.vocabulary, self._shift = vocabulary, shift_labels
        # In a tuple the teacher is no submodule: it stays in eval mode and out of checkpoints.
        self._teacher = (None if teacher is None else teacher.requires_grad_(False).eval(),)
        self.policy_steps = PolicySteps(distiller, policy_optimizer, policy_lr, recipe_epochs)
        self._rows: Tensor | float = 0.0
        self._steps_per_epoch = 1.0

    def configure_optimizers(self) -> Any:
        """The student's optimizer; the policy has its own."""
        return self._optimizer([each for each in self.student.parameters() if each.requires_grad])

    def setup(self, stage: str) -> None:
        """Checks the Trainer and moves teacher and Distiller to its device."""
        check_trainer(self.trainer)
        if self._teacher[0] is not None:
            self._teacher[0].to(self.trainer.strategy.root_device)

    def on_fit_start(self) -> None:
        """Every rank gets the policy of rank 0."""
        self.policy_steps.begin(self.device)

    def on_train_start(self) -> None:
        """Finds the steps of an epoch."""
        parts = self.trainer.accumulate_grad_batches
        self._steps_per_epoch = max(1.0, -(-self.trainer.num_training_batches // parts))

    def rows(self, batch: Any) -> tuple[Tensor, Tensor | None, Tensor]:
        """Student's and teacher's logits [N, C], and targets [N]."""
        teacher = self._teacher[0]
        if not isinstance(batch, Mapping):
            inputs, targets = batch
            with torch.no_grad():
                theirs = None if teacher is None else teacher(inputs)
            return self.student(inputs), theirs, targets
        targets, given = self._targets(batch), inputs_of(batch)
        logits = logits_of(self.student(**given), self.student, "student")
        student = rows_of_logits(logits, targets, self.vocabulary)
        kept = targets[targets != IGNORED]
        if teacher is None:
            return student, None, kept
        with torch.no_grad():
            logits = logits_of(teacher(**given), teacher, "teacher")
            theirs = rows_of_logits(logits, targets, self.vocabulary)
        check_columns(student, theirs, self.policy_steps.distiller.transform)
        return student, theirs, kept

    def _targets(self, batch: Mapping[str, Any]) -> Tensor:
        """The labels of a batch, each at the index of its logits."""
        labels = batch.get("labels")
        if self._shift is None and labels is not None and labels.dim() == 2:
            self._shift = shifts_labels(self.student)
        return targets_of(batch, bool(self._shift))

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """The sum of the loss over the rows of a part; `on_before_optimizer_step` divides it."""
        done = self.trainer.global_step
        self.policy_steps.at(
            done / self.trainer.estimated_stepping_batches, done / self._steps_per_epoch
        )
        student, teacher, targets = self.rows(batch)
        self._rows += len(targets)
        return self.policy_steps.loss(student, teacher, targets, total=1.0)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divides the gradient by the rows of the step, steps the policy, and logs."""
        total = torch.tensor(float(self._rows), device=self.device)
        if ranks() > 1:
            torch.distributed.all_reduce(total)
        share = ranks() / total.clamp(min=1.0)  # gradients are means over the ranks
        gradient = share * self.trainer.accumulate_grad_batches  # and were divided by the parts
        for parameter in self.student.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(gradient)
        self.policy_steps.step(gradient, sums=share)
        self._rows = 0.0
        shown = {f"train_{k}": v for k, v in self.policy_steps.last.items() if k != "temperature"}
        if "temperature" in self.policy_steps.last:
            shown["temperature"] = self.policy_steps.last["temperature"]
            shown["lambda"] = self.policy_steps.distiller.get_buffer("lambda_").clone()
        self.log_dict(shown)

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Logs `val_loss` (cross-entropy), `val_top1`, `val_agreement` and `val_kl`."""
        student, teacher, targets = self.rows(batch)
        if len(targets):
            percent = {"top1": 100.0, "agreement": 100.0}
            for name, total in judged(student, teacher, targets).items():
                mean = percent.get(name, 1.0) * total / len(targets)
                shown = f"val_{'loss' if name == 'ce' else name}"
                self.log(shown, mean, batch_size=len(targets), sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the policy's state."""
        checkpoint[STATE] = self.policy_steps.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the policy's state. Raises ConfigError where there is none."""
        if STATE not in checkpoint:
            raise ConfigError(f"the checkpoint has no {STATE}: it was saved without a CTKDModule")
        self.policy_steps.load_state_dict(checkpoint[STATE])


def check_trainer(trainer: Any) -> None:
    """Raises ConfigError for a setting of the Trainer with which the game would be wrong."""
    if trainer.precision == "16-mixed":
        raise ConfigError(
            "precision = '16-mixed': its loss scale would reach the policy; use 'bf16-mixed'"
        )
    if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
        raise ConfigError(
            f"{type(trainer.strategy).__name__} is not supported: use one device or strategy = "
            "'ddp'"
        )
