"""The Distiller in a loop that steps the student only: the policy's steps, state and log."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ctkd.adapters.t_star import t_star_of
from ctkd.checks import expect
from ctkd.distiller import Distiller, Outcome
from ctkd.engine.hidden_rows import HiddenRows, play_in_blocks
from ctkd.engine.task import Rows
from ctkd.errors import ConfigError
from ctkd.losses.fitting_parts import needs_whole_step


class PolicySteps:
    """Steps the policy next to a student that another package steps.

    The policy has an optimizer of its own: SGD, since Adam divides a gradient by its own size, and
    λ with it. Its gradient is averaged over the ranks here, because no wrapper of the student sees
    it.

    Attributes:
        distiller: the game.
        optimizer: of the Distiller's parameters; None where it has none.
        last: the means over the rows of the last step, 0-d tensors on the device: `loss`, the
            terms, and `temperature`; NaN after a step without a row.
    """

    def __init__(
        self,
        distiller: Distiller,
        optimizer: torch.optim.Optimizer | None = None,
        lr: float = 0.5,
        recipe_epochs: float | None = None,
        t_star_rows: int = 0,
    ) -> None:
        """Makes the optimizer, SGD with momentum 0.9, unless one is given.

        `recipe_epochs` is the length of the whole run on the schedule's scale; None for the run's
        own epochs. `t_star_rows` is the number of rows on which `shown` measures T*.

        Raises:
            ConfigError: a part of the game that needs more than the logits of one step's part.
        """
        if not isinstance(distiller, Distiller):
            raise ConfigError(f"distiller is a {type(distiller).__name__}: expected a Distiller")
        check_supported(distiller)
        expect(lr > 0, "adapter", "policy_lr", lr, "a number above 0")
        self.distiller, self.recipe_epochs, self.t_star_rows = distiller, recipe_epochs, t_star_rows
        self.parameters = [each for each in distiller.parameters() if each.requires_grad]
        if optimizer is None and self.parameters:
            optimizer = torch.optim.SGD(self.parameters, lr=lr, momentum=0.9)
        check_optimizer(optimizer, self.parameters)
        self.optimizer = optimizer
        self.last: dict[str, Tensor] = {}
        self._names = ["loss", *distiller.weights(0.0)]
        self._names += ["temperature"] if distiller.policy is not None else []
        self._names += ["share"]  # 1, or 0 for a step without a row
        self._sums: dict[str, Tensor] = {}
        self._since_shown: Tensor | None = None
        self._probe: Rows | None = None

    def begin(self, device: torch.device) -> None:
        """Moves the Distiller to the device; every rank gets the parameters of rank 0."""
        self.distiller.to(device)
        if self.optimizer is not None:  # a state that was loaded before moves too
            self.optimizer.load_state_dict(self.optimizer.state_dict())
        if ranks() > 1:
            for tensor in self.distiller.state_dict().values():
                torch.distributed.broadcast(tensor, 0)

    def at(self, progress: float, epochs: float) -> None:
        """Sets λ: `progress` is the share of the run that is done, `epochs` its epochs."""
        position = epochs if self.recipe_epochs is None else progress * self.recipe_epochs
        self.distiller.at(position, min(progress, 1.0))

    def loss(
        self, student: Tensor, teacher: Tensor | None, targets: Tensor, total: Tensor | float
    ) -> Tensor:
        """The sum of the loss over these rows, divided by `total`.

        Args:
            student, teacher: logits [N, C]; the teacher's is None without a teacher.
            targets: [N].
            total: the rows of the whole step, or 1.
        """
        if not len(targets):  # every token of this part is masked
            return student.sum() * 0.0
        student = student.float()
        teacher = None if teacher is None else teacher.float()
        outcome = self.distiller(student, teacher, targets)
        if self.t_star_rows and teacher is not None:
            few = slice(self.t_star_rows)  # copies, since a slice would keep all rows in memory
            self._probe = Rows(
                student.detach()[few].clone(), teacher[few].clone(), targets[few].clone()
            )
        return self._counted(outcome, len(targets) / total)

    def loss_in_blocks(self, rows: HiddenRows, total: Tensor | float) -> Tensor:
        """As `loss`, of rows whose logits are made for `rows.block` of them at a time."""
        assert rows.student_head is not None
        if not len(rows.targets):
            return rows.student_head(rows.student).sum() * 0.0
        outcome = play_in_blocks(self.distiller, rows, len(rows.targets), contextlib.nullcontext())
        return self._counted(outcome, len(rows.targets) / total)

    def _counted(self, outcome: Outcome, share: Tensor | float) -> Tensor:
        """The loss times `share`; adds the outcome to the step's means."""
        loss = outcome.loss * share
        parts = {**{name: term * share for name, term in outcome.terms.items()}, "loss": loss}
        parts["share"] = torch.ones_like(loss.detach()) * share
        if outcome.temperature is not None:
            parts["temperature"] = outcome.temperature.mean() * share
        for name in self._names:
            self._sums[name] = self._sums.get(name, 0.0) + parts[name].detach()
        return loss

    def step(self, gradient: Tensor | float = 1.0, sums: Tensor | float = 1.0) -> None:
        """Averages gradient and means over the ranks, multiplies them by the two, and steps.

        One all-reduce; no wait for the device.
        """
        device = self.distiller.get_buffer("lambda_").device
        zero = torch.zeros((), device=device)
        shown = torch.stack([self._sums.get(name, zero).float() for name in self._names])
        gradients = [
            torch.zeros_like(each) if each.grad is None else each.grad for each in self.parameters
        ]
        if ranks() > 1:
            flat = torch.cat([shown, *(each.reshape(-1) for each in gradients)])
            torch.distributed.all_reduce(flat)
            flat /= ranks()
            sizes = [len(shown), *(each.numel() for each in gradients)]
            shown, *parts = torch.split(flat, sizes)
            gradients = [p.view_as(g) for p, g in zip(parts, gradients, strict=True)]
        for parameter, mean in zip(self.parameters, gradients, strict=True):
            parameter.grad = mean * gradient
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()
        shown = shown * sums
        self.last = dict(zip(self._names, shown / shown[-1], strict=True))
        del self.last["share"]
        self._since_shown = shown if self._since_shown is None else self._since_shown + shown
        self._sums = {}

    def shown(self) -> dict[str, float]:
        """Means since the last call: `temperature` and the terms; `lambda` of the last step.

        Steps without a row do not count; without a row in any, there is nothing.

        Waits for the device, once. T* is measured here, where `t_star_rows` is set.
        """
        if self._since_shown is None:
            return {}
        sums, lambda_ = self._since_shown, self.distiller.get_buffer("lambda_")
        values = torch.cat([sums[:-1] / sums[-1], lambda_[None], sums[-1:]]).tolist()
        named = dict(zip([*self._names[:-1], "lambda", "share"], values, strict=True))
        del named["loss"]
        self._since_shown = None
        if not named.pop("share"):
            return {}
        if self._probe is not None:
            named["t_star"] = t_star_of(self.distiller, self._probe)
        return named

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: the Distiller's parameters, the optimizer's state."""
        optimizer = None if self.optimizer is None else self.optimizer.state_dict()
        return {"distiller": self.distiller.state_dict(), "optimizer": optimizer}

    def load_policy(self, state: Mapping[str, Any]) -> None:
        """Takes the Distiller's parameters of what `state_dict` returned."""
        self.distiller.load_state_dict(state["distiller"])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        try:
            self.load_policy(state)
            if self.optimizer is not None:
                self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                "the checkpoint has the state of another policy, objective or policy_optimizer: "
                "resume with the game that the run began with, or begin a new run"
            ) from error


def ranks() -> int:
    """The number of processes of this run."""
    distributed = torch.distributed
    started = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if started else 1


def check_optimizer(optimizer: object, parameters: list[torch.nn.Parameter]) -> None:
    """Raises ConfigError unless the optimizer has all parameters that it must step."""
    if not parameters and optimizer is None:
        return
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(f"policy_optimizer = {optimizer!r}: expected an optimizer, not its name")
    stepped = {id(each) for group in optimizer.param_groups for each in group["params"]}
    if not stepped.issuperset(map(id, parameters)):
        raise ConfigError(
            "policy_optimizer lacks parameters of the Distiller, which would never move: make it "
            "of distiller.parameters()"
        )


def check_supported(distiller: Distiller) -> None:
    """Raises ConfigError for a game that needs more than the logits of one part of a step."""
    objective = distiller.objective
    name = type(objective).__name__
    if distiller.features:
        raise ConfigError(
            "an adapter passes logits only, and feature losses need features: set features = ()"
        )
    if getattr(objective, "needs_strong_view", False):
        raise ConfigError(f"an adapter passes one view only, and {name} needs a strong view")
    if getattr(objective, "in_chunks", False) or getattr(distiller.transform, "needs_tokens", 0):
        part = name if distiller.transform is None else type(distiller.transform).__name__
        raise ConfigError(
            f"{part} is for two tokenizers, and an adapter gives both networks the same tokens: "
            "use gin/language/shared_columns.gin or one of its neighbors, with text_files.gin"
        )
    if needs_whole_step(objective):
        raise ConfigError(
            f"{name} compares the rows of a step with one another, and an adapter computes a step "
            "in parts: use an objective whose terms are of single rows, such as KD or DKD"
        )
    if needs_whole_step(distiller.policy):
        raise ConfigError(
            f"{type(distiller.policy).__name__} needs all rows of a step at once, and an adapter "
            "computes a step in parts: use another policy, such as GlobalTemperature"
        )


def check_networks(student: object, teacher: object) -> None:
    """Raises ConfigError unless the teacher is a module of its own."""
    if teacher is not None and not isinstance(teacher, torch.nn.Module):
        raise ConfigError(f"teacher_model = {teacher!r}: expected a module; load the model first")
    if isinstance(student, torch.nn.Module) and isinstance(teacher, torch.nn.Module):
        theirs = {id(each) for each in teacher.parameters()}
        if any(id(each) in theirs for each in student.parameters()):
            raise ConfigError(
                "student and teacher share parameters, and the teacher's are frozen: make one of "
                "them from a copy, copy.deepcopy(model)"
            )


def check_teacher(distiller: Distiller, teacher: object) -> None:
    """Raises ConfigError unless there is one teacher, or none where the game needs none."""
    if isinstance(teacher, (list, tuple, dict, torch.nn.ModuleList)):
        raise ConfigError(
            f"teacher_model is a {type(teacher).__name__} of {len(teacher)}: an adapter takes one "
            "teacher, so pass a module that combines their logits"
        )
    if teacher is None and distiller.needs_teacher:
        name = type(distiller.objective).__name__
        raise ConfigError(f"{name} compares the student with a teacher: pass teacher_model")
