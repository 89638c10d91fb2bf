"""A learned temperature for each sample: CTKD's Instance-T."""

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from ctkd.checks import expect, finite
from ctkd.registry import TEMPERATURES
from ctkd.temperature.bounds import Bounds

Inputs = Literal["logits", "probabilities"]
Order = Literal["class", "teacher"]


@TEMPERATURES.register
class InstanceTemperature(nn.Module):
    """T_i = tau_init + tau_range · sigmoid(MLP(z_s,i, z_t,i)), one for each row.

    CTKD (arXiv 2211.16231) describes two 1×1 convolutions on the concatenated outputs of student
    and teacher; on [N, 2C, 1, 1] they are Linear(2C, hidden) → ReLU → Linear(hidden, 1). The
    authors published no code for it, so each open choice is a parameter:

    - hidden = 256, as in the public re-implementation. The policy has hidden · (2C + 2) + 1
      parameters, and 2 · hidden more with batch_norm. At C = 100 that makes 51,713, or 25,857 with
      hidden = 128; 52,225 is the re-implementation, with batch_norm and probabilities.
    - inputs = "logits": logits differ between samples even if the softmax at T = 1 is one-hot, as
      for most training samples of a good teacher. "probabilities" is that softmax. The files in
      `gin/` use it: in trials on CIFAR-100 and on digits, logits drove T to a bound within a few
      epochs.
    - order = "class": column c is class c. "teacher" sorts both rows by the teacher's logits,
      descending: T then depends on the sorted values, not on the classes.
    - batch_norm = False: with it the T of a sample depends on the other samples of the batch.
    - raw_init = 1: T starts at 15.6212 for every sample, as in GlobalTemperature, because the last
      layer's weight starts at 0. (0 gives 11, as in the re-implementation.)

    The logits are detached: the reversed gradient must not reach the student. All is computed in
    the precision of the parameters, float32, also under autocast.

    Attributes:
        learned: True: the temperature passes through a gradient reversal.
        bounds: (lower, upper) of T.

    Raises:
        ConfigError: an unknown choice, or a number out of range.
        ValueError (when called): the logits are not both [N, num_classes].
    """

    learned: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        hidden: int = 256,
        inputs: Inputs = "logits",
        order: Order = "class",
        tau_init: float = 1.0,
        tau_range: float = 20.0,
        raw_init: float = 1.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        for name, count in (("num_classes", num_classes), ("hidden", hidden)):
            expect(isinstance(count, int) and count > 0, owner, name, count, "a whole number > 0")
        for name, choice, known in (("inputs", inputs, Inputs), ("order", order, Order)):
            choices = get_args(known)
            expect(choice in choices, owner, name, choice, f"one of {', '.join(choices)}")
        expect(finite(raw_init), owner, "raw_init", raw_init, "a finite number")
        self._map = Bounds(tau_init, tau_range, owner)
        self.bounds: tuple[float, float] | None = (self._map.lower, self._map.upper)
        self.num_classes, self.inputs, self.order = num_classes, inputs, order
        self.input = nn.Linear(2 * num_classes, hidden)
        self.norm = nn.BatchNorm1d(hidden) if batch_norm else nn.Identity()
        self.output = nn.Linear(hidden, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.constant_(self.output.bias, raw_init)

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, progress: float | Tensor
    ) -> Tensor:
        """[N, C] and [N, C] -> T, [N, 1]; `progress` has no effect."""
        for name, logits in (("student", student_logits), ("teacher", teacher_logits)):
            if logits.ndim != 2 or logits.shape[1] != self.num_classes:
                raise ValueError(
                    f"{name}_logits has shape {list(logits.shape)}: expected rows of "
                    f"num_classes = {self.num_classes}, [N, {self.num_classes}]"
                )
        with torch.autocast(student_logits.device.type, enabled=False):
            features = self._features(student_logits.detach(), teacher_logits.detach())
            raw = self.output(torch.relu(self.norm(self.input(features))))
            return self._map.temperature(raw)

    def _features(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The input of the MLP: [N, 2C], the student's columns first."""
        dtype = self.input.weight.dtype
        student, teacher = student.to(dtype), teacher.to(dtype)
        if self.order == "teacher":
            columns = teacher.argsort(dim=1, descending=True, stable=True)
            student, teacher = student.gather(1, columns), teacher.gather(1, columns)
        if self.inputs == "probabilities":
            student, teacher = student.softmax(dim=1), teacher.softmax(dim=1)
        return torch.cat((student, teacher), dim=1)
