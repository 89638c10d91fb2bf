"""The student of SimKD as it is evaluated and saved: with the teacher's classifier."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ctkd.errors import ConfigError
from ctkd.losses.features.feature_terms import FeatureTerms
from ctkd.losses.features.same_size import pooled_to
from ctkd.losses.features.simkd import SimKD
from ctkd.models.extraction import Extractor
from ctkd.models.feature_paths import classifier_path

TOLERANCE = 1e-4  # of the largest pooled feature


class ReusedClassifier(nn.Module):
    """classifier(mean over the pixels of projector(map)), the map being the student's.

    Attributes:
        student, projector: trained; they are shared with the run.
        classifier: the teacher's last layer.
    """

    def __init__(
        self, student: nn.Module, path: str, projector: nn.Module, classifier: nn.Module, size: int
    ) -> None:
        """`path` is that of the student's map, `size` that of the teacher's map in pixels."""
        super().__init__()
        self.student, self.projector = student, projector
        self.classifier = copy.deepcopy(classifier).requires_grad_(False)
        self._extract, self._size = Extractor(student, {"map": path}), size

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, K] of images."""
        _, features = self._extract(images)
        projected = self.projector(pooled_to(features["map"], self._size))
        logits: Tensor = self.classifier(projected.mean((2, 3)))
        return logits


def deployed_student(
    losses: FeatureTerms,
    student: nn.Module,
    teacher: nn.Module | None,
    student_paths: Mapping[str, str],
    teacher_paths: Mapping[str, str],
    image: Tensor,
) -> nn.Module:
    """The network that a run evaluates and saves: the student, but for SimKD.

    Raises:
        ConfigError: the teacher's classifier does not receive the mean of the map to be imitated.
    """
    found = [loss for loss in losses if isinstance(loss, SimKD)]
    path = None if teacher is None else classifier_path(teacher)
    if not found or teacher is None or path is None:
        return student
    (name,) = found[0].at
    other = found[0].of_teacher(name)
    taps = {"map": teacher_paths[other], "pooled": f"{path}:input"}
    extractor = Extractor(teacher, taps)
    shapes = extractor.shapes(image)
    extractor.close()
    if image.device.type != "meta":
        _check_pooling(teacher, taps, image)
    size, classifier = shapes["map"][-1], teacher.get_submodule(path)
    return ReusedClassifier(student, student_paths[name], found[0].projector, classifier, size)


def _check_pooling(teacher: nn.Module, taps: Mapping[str, str], image: Tensor) -> None:
    """Compares the mean of the teacher's map with what its classifier receives."""
    extractor, was_training = Extractor(teacher, taps), teacher.training
    teacher.eval()
    with torch.no_grad():
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
        _, found = extractor(noise)
    extractor.close()
    teacher.train(was_training)
    mean = found["map"].mean((2, 3))
    pooled = found["pooled"]
    near = mean.shape == pooled.shape and torch.allclose(
        mean, pooled, rtol=0, atol=TOLERANCE * float(pooled.abs().max())
    )
    if not near:
        raise ConfigError(
            f"SimKD imitates the map {taps['map']}, but the teacher's classifier does not receive "
            "its mean: name the map before the pooling, as in Features.teacher = {'final': …}"
        )
