"""Networks with a distillation token (DeiT): two rows of logits in training."""

from typing import Any

from torch import Tensor, nn


def use_distillation_token(network: nn.Module, distills: bool) -> None:
    """Lets a network that can return (class logits, distillation logits) in training do so.

    In evaluation, and without a teacher, timm's networks return the mean of the two.
    """
    switch = getattr(network, "set_distilled_training", None)
    if switch is not None:
        switch(distills)


def heads_of(output: Any) -> tuple[Tensor, Tensor | None]:
    """Splits a student's output into (logits for the teacher, logits for the targets).

    The second is None if the network has one row of logits for both.
    """
    if isinstance(output, tuple):
        of_class, of_teacher = output
        return of_teacher, of_class
    return output, None
