"""The base class of feature losses."""

import re
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from ctkd.checks import expect, finite
from ctkd.errors import ConfigError
from ctkd.losses.objectives import warmup_share

Features = dict[str, Tensor]  # by name; [N, D], or maps [N, C, H, W]
Pairs = list[tuple[Tensor, Tensor]]


class StepRows(NamedTuple):
    """Further inputs of a feature loss, for the same rows.

    Attributes:
        targets: [N], classes.
        teacher_logits: [N, C].
        indices: [N], the index of each sample in the training set.
    """

    targets: Tensor | None = None
    teacher_logits: Tensor | None = None
    indices: Tensor | None = None


class FeatureLoss(nn.Module):
    """weight · a distance between features of student and teacher; it never sees T.

    A subclass implements `forward`. If it has modules, it makes them in `build`; they are trained
    together with the student.

    Attributes:
        weight: of the loss, multiplied by min(n / warmup_epochs, 1) during the n-th epoch.
        at: names of the features. "stages" means all stages, "last" the last stage.
        compares_rows: whether the loss compares the rows of a step with each other. Several
            processes then gather the rows of all ranks.
        needs_class: whether it needs one class for each row.
        needs: "classifier" where `use_classifier` must be called, "samples" where `use_samples`.

    Raises:
        ConfigError: a weight that is not a finite number >= 0, or no name.
    """

    compares_rows: ClassVar[bool] = False
    needs_class: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()

    _classifier: tuple[nn.Module, ...] = ()  # in a tuple: not a submodule

    def __init__(self, weight: float, at: Sequence[str], warmup_epochs: float = 0.0) -> None:
        super().__init__()
        for name, value in {"weight": weight, "warmup_epochs": warmup_epochs}.items():
            valid = finite(value) and value >= 0
            expect(valid, type(self).__name__, name, value, "a finite number >= 0")
        expect(len(at) > 0, type(self).__name__, "at", at, "names of features, such as 'pooled'")
        self.weight, self.warmup_epochs, self.at = weight, warmup_epochs, tuple(at)

    @property
    def term(self) -> str:
        """The name of the loss in records."""
        return type(self).__name__.lower()

    def weights(self, position: float) -> dict[str, float]:
        """The weight at `position`, the number of the recipe's epochs done, under `term`."""
        return {self.term: self.weight * warmup_share(position, self.warmup_epochs)}

    def build(self, student: Features, teacher: Features) -> None:
        """Makes the modules, sized by examples of the features; called once, before training.

        Raises:
            ConfigError: the loss cannot compare such features.
        """

    def use_classifier(self, classifier: nn.Module) -> None:
        """Takes the teacher's last layer, [N, D] -> logits [N, C]; it is not trained."""
        self._classifier = (classifier,)

    def use_samples(self, targets: Tensor) -> None:
        """Takes the classes [n] of all training samples, before the first step."""

    @property
    def classifier(self) -> nn.Module:
        """The teacher's last layer."""
        if not self._classifier:
            raise ValueError(f"{self.named} needs the teacher's last layer: call use_classifier")
        return self._classifier[0]

    def forward(self, student: Features, teacher: Features, rows: StepRows) -> Tensor:
        """The loss without its weight: 0-d, a mean over the given rows.

        Args:
            student, teacher: the features by name, float32 or float64.
            rows: further inputs.
        """
        raise NotImplementedError

    def of_teacher(self, name: str) -> str:
        """The name of the teacher's feature that a student's is compared with; here the same."""
        return name

    def names(self, features: Features) -> list[str]:
        """The student's names in `at`, with those of all stages for "stages"."""
        return [n for name in self.at for n in (_stages(features) if name == "stages" else [name])]

    def pairs(self, student: Features, teacher: Features) -> Pairs:
        """(student's, teacher's) of each feature that the loss compares.

        Raises:
            ConfigError: a feature is missing, or the networks have different numbers of stages.
        """
        names = self.names(student)
        pairs = [(name, self.of_teacher(name)) for name in names]
        missing = [n for n, _ in pairs if n not in student] + [
            t for _, t in pairs if t not in teacher
        ]
        if missing or not names:
            raise ConfigError(
                f"{self.named} lacks the feature {', '.join(missing or self.at)}: the student has "
                f"{', '.join(student) or 'none'}, the teacher {', '.join(teacher) or 'none'}. "
                f"{type(self).__name__}.at names the features to compare"
            )
        if "stages" in self.at and len(_stages(teacher, self.of_teacher("stage1")[:-1])) > len(
            _stages(student)
        ):
            raise ConfigError(
                f"{self.named} compares stage by stage, and the teacher has more stages than the "
                f"student: name the features to compare with {type(self).__name__}.at"
            )
        return [(student[name], teacher[other]) for name, other in pairs]

    @property
    def named(self) -> str:
        """The loss in messages."""
        return f"the feature loss {type(self).__name__}"


def _stages(features: Features, kind: str = "stage") -> list[str]:
    """The names of the stages, in their order."""
    found = [name for name in features if re.fullmatch(rf"{kind}\d+", name)]
    return sorted(found, key=lambda name: int(name.removeprefix(kind)))
