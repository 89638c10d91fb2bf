"""Transforms of the logits: `transform(student_logits, teacher_logits) -> (student, teacher)`.

Policy and objective get the result. A transform is differentiable.
"""

from torch import Tensor

from ctkd.checks import expect, finite
from ctkd.losses.per_row import check_logits, full_precision
from ctkd.registry import TRANSFORMS


@TRANSFORMS.register
class LogitStandardization:
    """z -> (z − mean(z)) / (std(z) + epsilon), row by row, for both networks.

    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024 (arXiv 2403.01427).
    The student then learns the shape of the teacher's logits, not their scale. std is the unbiased
    one, and epsilon is outside the root, as in the public code.

    Raises:
        ConfigError: epsilon is not a finite number > 0.
        ValueError (when called): not rows [N, C] with C >= 2.
    """

    min_classes = 2  # a standard deviation needs two values

    def __init__(self, epsilon: float = 1e-7) -> None:
        owner = type(self).__name__
        expect(finite(epsilon) and epsilon > 0, owner, "epsilon", epsilon, "a number > 0")
        self.epsilon = epsilon

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C] and [N, C] -> the same, standardized; half precision becomes float32."""
        return (
            self._standardize("student_logits", student_logits),
            self._standardize("teacher_logits", teacher_logits),
        )

    def limits(self, num_classes: int, learned: bool) -> list[str]:
        """With two classes a row keeps nothing but the order of its two logits."""
        if num_classes != 2:
            return []
        return [
            f"{type(self).__name__} with 2 classes: a standardized row of two logits is always "
            "±0.7071, so only the preferred class is left of both networks, and the distillation "
            "loss has almost no gradient (about 1e-5). A temperature per row sees nothing else "
            "either. Use Method.transform = None"
        ]

    def _standardize(self, name: str, logits: Tensor) -> Tensor:
        check_logits(name, logits)
        if logits.shape[1] < 2:
            raise ValueError(f"{name} has {logits.shape[1]} classes: a std needs at least 2")
        logits = full_precision(logits)
        # torch defines the gradient of a std that is 0 as 0: a constant row's gradient is finite.
        std = logits.std(dim=1, keepdim=True)
        return (logits - logits.mean(dim=1, keepdim=True)) / (std + self.epsilon)
