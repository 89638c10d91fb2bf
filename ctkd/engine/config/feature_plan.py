"""Which features of the two networks a run's feature losses compare."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ctkd.data.dataset import Dataset, ImageDataset
from ctkd.engine.config.builder import Builder
from ctkd.engine.config.settings import Features, Method, Recipe
from ctkd.engine.reused_classifier import deployed_student
from ctkd.errors import ConfigError
from ctkd.losses.features.feature_loss import FeatureLoss
from ctkd.losses.features.feature_terms import FeatureTerms
from ctkd.models.extraction import Extractor
from ctkd.models.feature_paths import paths_of
from ctkd.registry import FEATURES
from ctkd.seeds import seeded

Shapes = dict[str, torch.Size]


@dataclass(frozen=True)
class FeaturePlan:
    """Features by name: the module path and the shape of each, of a batch of one image.

    Attributes:
        student, teacher: name -> module path.
        student_shapes, teacher_shapes: name -> shape.
        deployed: the network that is evaluated and saved.
    """

    student: dict[str, str]
    teacher: dict[str, str]
    student_shapes: Shapes
    teacher_shapes: Shapes
    deployed: nn.Module

    @property
    def teacher_widths(self) -> dict[str, int] | None:
        """The number of features of each name; None where one is a map, too large for a cache."""
        shapes = self.teacher_shapes
        if any(len(shape) != 2 for shape in shapes.values()):
            return None
        return {name: shape[1] for name, shape in shapes.items()}

    def lines(self) -> Iterator[str]:
        """One line for each feature, for a dry run."""
        for whose, paths, shapes in (
            ("student's", self.student, self.student_shapes),
            ("teacher's", self.teacher, self.teacher_shapes),
        ):
            for name, path in paths.items():
                yield f"{whose} {name:<8} {path} {list(shapes[name][1:])}"


def feature_losses(call: Builder, method: Method) -> list[FeatureLoss]:
    """The feature losses of the method, their modules not made yet."""
    return [call.component(FEATURES, "Method.features", each) for each in method.features]


def plan_features(
    call: Builder,
    losses: FeatureTerms,
    student: nn.Module,
    teacher: nn.Module | None,
    dataset: Dataset,
    seed: int,
) -> FeaturePlan | None:
    """Finds the features, and makes the modules of the losses; None where there are no losses.

    Raises:
        ConfigError: a name or path is unknown, or a loss cannot compare the features.
    """
    if not losses:
        return None
    if not isinstance(dataset, ImageDataset) or teacher is None:
        raise ConfigError("Method.features is for image classification with a teacher")
    settings: Features = call.part(Features)
    ours = [name for loss in losses for name in loss.at]
    theirs = [loss.of_teacher(name) for loss in losses for name in loss.at]
    image = torch.zeros(1, *dataset.shape, device=next(student.parameters()).device)
    student_paths, student_shapes = _found(call, student, ours, settings.student, image)
    teacher_paths, teacher_shapes = _found(call, teacher, theirs, settings.teacher, image)
    for loss in losses:
        with seeded(seed, "feature loss", loss.term):
            loss.build(_examples(student_shapes), _examples(teacher_shapes))
    deployed = deployed_student(losses, student, teacher, student_paths, teacher_paths, image)
    return FeaturePlan(student_paths, teacher_paths, student_shapes, teacher_shapes, deployed)


def _found(
    call: Builder,
    network: nn.Module,
    names: Sequence[str],
    own: Mapping[str, str] | None,
    image: Tensor,
) -> tuple[dict[str, str], Shapes]:
    """The path and the shape of each name."""

    def find() -> tuple[dict[str, str], Shapes]:
        paths = paths_of(network, names, own or {}, image)
        extractor = Extractor(network, paths)
        try:
            return paths, extractor.shapes(image)
        finally:
            extractor.close()

    return call.fact(network, (list(names), own, image.shape), find)


def check_average(plan: FeaturePlan | None, student: nn.Module, recipe: Recipe) -> None:
    """Raises ConfigError for an average of weights that would miss those of SimKD's projector."""
    if plan is not None and plan.deployed is not student and recipe.ema_decay is not None:
        raise ConfigError(
            f"Recipe.ema_decay = {recipe.ema_decay}: expected None with SimKD, whose projector is "
            "a part of the network that is evaluated"
        )


def _examples(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
