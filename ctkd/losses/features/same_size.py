"""Brings two maps to one size by average pooling."""

from torch import Tensor
from torch.nn import functional as F


def pooled_to(maps: Tensor, size: int) -> Tensor:
    """The maps [N, C, H, H], average-pooled to `size`, where they are larger."""
    if maps.shape[-1] <= size:
        return maps
    if maps.shape[-1] % size == 0:  # its backward pass on a GPU always adds in one order
        return F.avg_pool2d(maps, maps.shape[-1] // size)
    return F.adaptive_avg_pool2d(maps, size)


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """The two maps [N, C, H, H]; the larger one is average-pooled to the size of the smaller."""
    size = min(student.shape[-1], teacher.shape[-1])
    return pooled_to(student, size), pooled_to(teacher, size)
