"""The policy of a transformers Trainer: its place in the Trainer's life, for any loss."""

import inspect
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from ctkd.adapters.policy_steps import PolicySteps, check_networks, check_teacher
from ctkd.distiller import Distiller
from ctkd.errors import ConfigError
from ctkd.files import replacing

STATE = "ctkd_policy.pt"


class PolicyMixin:
    """Owns a Distiller in front of a Trainer: steps it, saves it, logs T and λ.

    A subclass computes the loss with `policy_steps`.
    """

    loss_is_scaled_for_ga = True  # the loss is divided by the rows of the whole step

    def __init__(
        self,
        *args: Any,
        distiller: Distiller,
        teacher_model: Any = None,
        recipe_epochs: float | None = None,
        policy_lr: float = 0.5,
        policy_optimizer: torch.optim.Optimizer | None = None,
        t_star_rows: int = 0,
        **kwargs: Any,
    ) -> None:
        """Takes the arguments of the Trainer, and these.

        Args:
            distiller: the game. Its parameters have an optimizer of their own.
            teacher_model: the frozen teacher; a Trainer that has such an argument gets it.
            recipe_epochs: the length of the run on the scale of the schedule of λ; None for the
                epochs of the run.
            policy_lr: the rate of the policy's SGD, whose momentum is 0.9.
            policy_optimizer: another optimizer of `distiller.parameters()`.
            t_star_rows: measure T* on so many rows whenever the Trainer logs; 0 for never. A row
                costs 25 passes over its logits.

        Raises:
            ConfigError: something that an adapter cannot do.
        """
        check_teacher(distiller, teacher_model)
        steps = PolicySteps(distiller, policy_optimizer, policy_lr, recipe_epochs, t_star_rows)
        prepares = "teacher_model" in inspect.signature(super().__init__).parameters
        more = {"teacher_model": teacher_model} if prepares else {}
        super().__init__(*args, **more, **kwargs)
        check_trainer(self)
        trainer: Any = self
        check_networks(trainer.model, trainer.teacher_model if prepares else teacher_model)
        self.policy_steps = steps
        self.model_accepts_loss_kwargs = True
        if not prepares:
            if teacher_model is not None:
                teacher_model = teacher_model.requires_grad_(False).eval()
                teacher_model = trainer.accelerator.prepare_model(
                    teacher_model, evaluation_mode=True
                )
            self.teacher_model = teacher_model
        steps.begin(trainer.args.device)
        trainer.add_callback(_PolicyCallback(steps))

    def train(
        self, resume_from_checkpoint: Any = None, trial: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As the Trainer's; a checkpoint must have the policy's state.

        Raises:
            ConfigError: it has not; or this is a trial of a hyperparameter search.
        """
        trainer: Any = self
        if trial is not None:
            raise ConfigError(
                "hyperparameter_search would start each trial with the last one's T: make a "
                "Distiller and a Trainer for each trial"
            )
        if resume_from_checkpoint:
            folder = resume_from_checkpoint
            folder = get_last_checkpoint(trainer.args.output_dir) if folder is True else folder
            if folder is not None:  # otherwise the Trainer says that there is none
                self.policy_steps.load_state_dict(read_state(folder, ("distiller", "optimizer")))
        return super().train(resume_from_checkpoint, trial, *args, **kwargs)  # type: ignore[misc]

    def _load_best_model(self) -> None:
        """As the Trainer's; the policy becomes that of the student's checkpoint.

        A checkpoint without a policy gets a warning, since the run has ended.
        """
        super()._load_best_model()  # type: ignore[misc]
        best = self.state.best_model_checkpoint  # type: ignore[attr-defined]
        try:
            self.policy_steps.load_policy(read_state(best, ("distiller",)))
        except ConfigError as error:
            warnings.warn(f"the policy stays that of the last step: {error}", stacklevel=2)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the Trainer's; of the training loss, with `temperature`, `lambda` and the terms."""
        if "loss" in logs:
            logs.update(self.policy_steps.shown())
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def follow_run(self) -> None:
        """Sets λ for the Trainer's step."""
        state = self.state  # type: ignore[attr-defined]
        self.policy_steps.at(state.global_step / max(1, state.max_steps), state.epoch or 0.0)


class _PolicyCallback(TrainerCallback):  # type: ignore[misc]
    """Steps the policy before the student's optimizer, and saves it after the student."""

    def __init__(self, steps: PolicySteps) -> None:
        self._steps = steps

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._steps.step()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.should_save:
            saved = self._steps.state_dict()
            if args.save_only_model:
                del saved["optimizer"]
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            with replacing(folder / STATE) as target:
                torch.save(saved, target)


def read_state(folder: str | os.PathLike[str], parts: tuple[str, ...]) -> dict[str, Any]:
    """The policy's state in a checkpoint. Raises ConfigError where one of the parts is missing."""
    path = Path(folder) / STATE
    if not Path(folder).is_dir():
        raise ConfigError(f"resume_from_checkpoint = {str(folder)!r}: there is no such folder")
    if not path.exists():
        raise ConfigError(
            f"{folder} has no {STATE}: it was saved without the policy, or the run was killed "
            "before it was complete; resume from an earlier checkpoint"
        )
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(f"{path} is damaged: resume from an earlier checkpoint") from error
    missing = [part for part in parts if part not in state]
    if missing:
        raise ConfigError(
            f"{path} has no {', '.join(missing)}: it was saved with save_only_model = True; resume "
            "from a whole checkpoint, or begin a new run"
        )
    return state


def check_trainer(trainer: Any) -> None:
    """Raises ConfigError for a setting of the Trainer with which the game would be wrong."""
    args, accelerator = trainer.args, trainer.accelerator
    refused = {
        f"n_gpu = {args.n_gpu}: DataParallel splits a batch where the policy cannot follow; start "
        "one process per GPU with torchrun, or set CUDA_VISIBLE_DEVICES to one": args.n_gpu > 1,
        "fp16 = True: its loss scale would reach the policy; use bf16": args.fp16,
        "torch_compile = True: the step has parts that are not compiled; set it to False, or "
        "compile the model yourself": args.torch_compile,
        "DeepSpeed and FSDP are not supported: use DistributedDataParallel (torchrun)": (
            trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
        ),
        "tensor, context and sequence parallelism are not supported: they split a row or count it "
        "twice": getattr(accelerator, "parallelism_config", None) is not None,
        "label_smoothing_factor and compute_loss_func have no effect: the Distiller's objective is "
        "the loss; remove them": (
            args.label_smoothing_factor != 0 or trainer.compute_loss_func is not None
        ),
    }
    for message, found in refused.items():
        if found:
            raise ConfigError(message)
