"""Which features of the two networks a run's feature losses compare."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ctkd.data.dataset import Dataset, ImageDataset
from ctkd.engine.config.builder import Builder
from ctkd.engine.config.settings import Features, Method
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
    """

    student: dict[str, str]
    teacher: dict[str, str]
    student_shapes: Shapes
    teacher_shapes: Shapes

    def lines(self) -> Iterator[str]:
        """One line for each feature, for a dry run."""
        sides = (self.student, self.student_shapes), (self.teacher, self.teacher_shapes)
        for name in self.student:
            found = [f"{paths[name]} {list(shapes[name][1:])}" for paths, shapes in sides]
            yield f"{name:<10} student {found[0]}, teacher {found[1]}"


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
    names = list(dict.fromkeys(name for loss in losses for name in loss.at))
    found = []
    for network, own in ((student, settings.student), (teacher, settings.teacher)):
        image = torch.zeros(1, *dataset.shape, device=next(network.parameters()).device)
        paths = paths_of(network, names, own or {}, image)
        extractor = Extractor(network, paths)
        try:
            found.append((paths, extractor.shapes(image)))
        finally:
            extractor.close()
    plan = FeaturePlan(found[0][0], found[1][0], found[0][1], found[1][1])
    for loss in losses:
        with seeded(seed, "feature loss", loss.term):
            loss.build(_examples(plan.student_shapes), _examples(plan.teacher_shapes))
    return plan


def _examples(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
