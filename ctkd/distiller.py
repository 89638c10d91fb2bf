"""The game between student and temperature, as a module for any training loop."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ctkd.adversary.grl import gradient_reversal
from ctkd.errors import ConfigError
from ctkd.losses.features.feature_loss import FeatureLoss, Features, StepRows
from ctkd.losses.features.feature_terms import FeatureTerms
from ctkd.losses.few_classes import check_classes
from ctkd.losses.fitting_parts import (
    check_all_rows,
    check_columns,
    check_fitting,
    check_policy_and_schedule,
    check_position,
)
from ctkd.losses.objectives import ObjectiveLike
from ctkd.losses.per_row import check_logits, check_step, explain_targets, without_autocast
from ctkd.losses.row_groups import group_sums
from ctkd.losses.term_means import check_scalar, check_total, means_of, temperatures_of_rows
from ctkd.losses.two_views import second_view

Schedule = Callable[[float], float]
Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Outcome(NamedTuple):
    """The result of a call of the Distiller.

    Attributes:
        loss: 0-d, to call `backward` on.
        terms: the terms' means over the step's rows, detached and without their weights.
        temperature: 0-d or [N, 1], detached; None without a teacher. Where the policy returns
            two temperatures it is the student's, and the mean of the teacher's is a term,
            "temperature_teacher".
        groups: for each group, sums over its rows divided by the rows of the step; see
            `group_sums`.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    temperature: Tensor | None
    groups: dict[str, Tensor] = {}  # noqa: RUF012 - the default of a NamedTuple, never changed


class Distiller(nn.Module):
    """min over the student, max over the temperature, of Σ weight · term / rows.

    The logits pass through `transform`. `policy` returns the temperature T. A learned T passes
    through gradient reversal of strength λ = `schedule(position)`, so that one optimizer descends
    for the student and ascends for the policy (CTKD, Li et al. 2023, equations 4 to 8).
    `objective` returns the losses of each row.

    `distiller.parameters()` are those of the policy, and of an objective, a transform or a feature
    loss that has parameters (`helpers`). Give them to the optimizer together with the student's.
    Give the policy's no weight decay, which would pull T to the middle of its range.

    Attributes:
        learned: whether the policy is trained, against the student.
        cooperative: whether it is trained with the student instead: a counterfactual.
        bounds: (lower, upper) of a bounded T, or None.
        features: the feature losses, terms that never see T; their parameters descend.
        checks_rows: whether a part that needs all rows of a step is refused with fewer.
    """

    def __init__(
        self,
        policy: nn.Module | None,
        schedule: Schedule | None,
        objective: ObjectiveLike,
        transform: Transform | None = None,
        features: Sequence[FeatureLoss] = (),
        cooperative: bool = False,
    ) -> None:
        """Composes the parts; `policy` and `schedule` are None without a teacher.

        Raises:
            ConfigError: a learned policy without a schedule of λ, or the other way around; an
                objective that needs a teacher without a policy, or the other way around; parts
                that do not fit together, see `check_fitting`; a repeated feature loss.
        """
        super().__init__()
        self.learned: bool = bool(getattr(policy, "learned", False))
        self.bounds: tuple[float, float] | None = getattr(policy, "bounds", None)
        check_policy_and_schedule(policy, schedule, objective, transform, cooperative)
        check_fitting(policy, objective, transform)
        self.policy, self.schedule, self.cooperative = policy, schedule, cooperative
        self.objective, self.transform = objective, transform
        self.features, self.checks_rows = FeatureTerms(features), True
        # Values that change from step to step are 0-d tensors on the device, so that a captured
        # step sees them change.
        self.register_buffer("lambda_", torch.zeros(()), persistent=False)
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        for term, weight in self.weights(0.0).items():
            self.register_buffer(f"weight_{term}", torch.tensor(weight), persistent=False)
        self._placed = False

    @property
    def needs_teacher(self) -> bool:
        """Whether the objective or a feature loss compares the student with a teacher."""
        return self.objective.needs_teacher or len(self.features) > 0

    @property
    def helpers(self) -> list[nn.Module]:
        """Objective, transform and feature losses, where they have parameters, which descend."""
        parts = (self.objective, self.transform, self.features)
        return [part for part in parts if isinstance(part, nn.Module)]

    def at(self, position: float, progress: float = 0.0) -> None:
        """Sets λ and the weights for a position in the recipe.

        Args:
            position: epochs of the published recipe that are done, for schedules and warm-ups.
            progress: share of the whole run that is done, in [0, 1], for an annealed T.

        Raises:
            ConfigError: the schedule's λ or the position is below 0, or progress outside [0, 1].
        """
        check_position(position, progress)
        if self.schedule is not None:
            strength = self.schedule(position)
            if not strength >= 0:
                name = type(self.schedule).__name__
                raise ConfigError(
                    f"{name} gives λ = {strength} at position {position}: expected λ >= 0 "
                    "(the gradient reversal negates, once)"
                )
            self._buffer("lambda_").fill_(strength)
        self._buffer("progress").fill_(progress)
        for term, weight in self.weights(position).items():
            self._buffer(f"weight_{term}").fill_(weight)
        self._placed = True

    def weights(self, position: float) -> dict[str, float]:
        """The weights of all terms at a position in the recipe."""
        return self.objective.weights(position) | self.features.weights(position)

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        *,
        position: float | None = None,
        progress: float = 0.0,
        total_rows: int | None = None,
        other_losses: dict[str, Tensor] | None = None,
        groups: Tensor | None = None,
        group_names: Sequence[str] = (),
        row_weights: Tensor | None = None,
        features: tuple[Features, Features] | None = None,
        indices: Tensor | None = None,
        strong: tuple[Tensor, Tensor] | None = None,
        class_logits: Tensor | None = None,
    ) -> Outcome:
        """The loss of the step, or the share that this part of the step has in it.

        Args:
            student_logits, teacher_logits: [N, C]; the teacher's is None without a teacher.
            targets: [N].
            position, progress: as in `at`; without a position, those of the last call of `at`.
            total_rows: number of rows of the whole step, where this is a part of it (default N).
            other_losses: scalars of this part, added with weight 1.
            groups, group_names: [N], the group of each row, and the names of the groups.
            row_weights: [N], the weight of each row in the loss; the terms reported are unweighted.
            features: the student's and the teacher's, by name; for feature losses.
            indices: [N], of the samples in the training set; for feature losses that need them.
            strong: (student's, teacher's) logits of the rows' strong view, [N, C] each; for an
                objective with `needs_strong_view`.
            class_logits: [N, C], the student's for cross-entropy, where a distillation token gives
                it others for the teacher, `student_logits`.

        Raises:
            ValueError: there was neither a position nor a call of `at`.
            ConfigError: a part needs all rows of the step, and gets some of them.
        """
        if position is not None:
            self.at(position, progress)
        if not self._placed:
            raise ValueError("Distiller: pass position=<done epochs>, or call at(position) before")
        check_logits("student_logits", student_logits)
        rows = len(student_logits)
        total = check_total(rows, total_rows)
        if self.checks_rows:
            check_all_rows((self.objective, self.policy, *self.features), rows, total)
        given = (student_logits, teacher_logits, targets)
        with without_autocast(student_logits.device):
            terms, temperature = self.terms(*given, strong=strong, class_logits=class_logits)
            if self.features:
                rows_given = StepRows(targets, teacher_logits, indices)
                terms = {**terms, **self.features(features, rows_given)}
        means = means_of(terms, rows, total)
        counted = means
        if row_weights is not None:
            counted = means_of(terms, rows, total, row_weights)
        loss = torch.stack([self._buffer(f"weight_{k}") * m for k, m in counted.items()]).sum()
        for name, value in (other_losses or {}).items():
            check_scalar(name, value, terms)
            means[name] = value * (rows / total)
            loss = loss + means[name]
        temperatures = temperatures_of_rows(temperature, rows)
        if (of_teacher := temperatures.get("temperature_teacher")) is not None:
            means |= means_of({"temperature_teacher": of_teacher}, rows, total)
        sums: dict[str, Tensor] = {}
        if groups is not None:
            own = {k: v for k, v in temperatures.items() if k == "temperature"}
            sums = group_sums({**terms, **own}, groups, group_names, total)
        shown = temperature[0] if isinstance(temperature, tuple) else temperature
        shown = None if shown is None else shown.detach()
        return Outcome(loss, {k: mean.detach() for k, mean in means.items()}, shown, sums)

    def terms(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        targets: Tensor,
        temperature: Tensor | tuple[Tensor, Tensor] | None = None,
        strong: tuple[Tensor, Tensor] | None = None,
        class_logits: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Tensor | tuple[Tensor, Tensor] | None]:
        """The terms of each row, and the temperature, or the two, at which they were computed.

        A `temperature` that is passed in replaces the policy's and is not reversed: the landscape
        L(T) is measured in this way.

        Raises:
            ValueError: rows that the parts cannot use.
        """
        same = self.transform is None and getattr(self.objective, "same_columns", False)
        check_step(student_logits, teacher_logits, targets, same)
        check_classes((self.objective, self.transform), student_logits.shape[1])
        student, teacher = student_logits, teacher_logits
        if self.policy is not None:
            if teacher is None:
                raise ValueError(
                    "teacher_logits is None: this objective compares student and teacher"
                )
            if self.transform is not None:
                check_columns(self.policy, self.objective, self.transform)
                student, teacher = self.transform(student, teacher)
            if temperature is None:
                temperature = self.temperature_of(student, teacher, targets)
                if self.learned:
                    temperature = self._reversed(temperature)
        views = second_view(self.objective, strong, teacher_logits, self.transform)
        raw = student_logits if class_logits is None else class_logits
        try:
            return self.objective(student, teacher, targets, temperature, raw, **views), temperature
        except (IndexError, RuntimeError):
            explain_targets(targets, raw.shape[1])
            raise

    def temperature_of(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Any:
        """The policy's T for transformed logits; targets go to a policy that `needs_targets`."""
        assert self.policy is not None
        more = (targets,) if getattr(self.policy, "needs_targets", False) else ()
        return self.policy(student, teacher, self._buffer("progress"), *more)

    def _reversed(self, temperature: Any) -> Any:
        """The temperature, or the tuple of two, behind the gradient reversal."""
        strength = self._buffer("lambda_")
        strength = -strength if self.cooperative else strength
        if isinstance(temperature, tuple):
            return tuple(gradient_reversal(each, strength) for each in temperature)
        return gradient_reversal(temperature, strength)

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """Σ weight · mean of the term over its rows, with the current weights."""
        return torch.stack([self._buffer(f"weight_{k}") * v.mean() for k, v in terms.items()]).sum()

    def _buffer(self, name: str) -> Tensor:
        return self.get_buffer(name)
