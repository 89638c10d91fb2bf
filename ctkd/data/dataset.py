"""The properties of every data set, known before it is read."""

import abc
import hashlib
import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ctkd.checks import expect
from ctkd.files import user_path
from ctkd.seeds import generator


class Dataset(abc.ABC):
    """A data set. Its constructor reads no data.

    Attributes:
        kind: the kind of its samples, which decides the task.
        num_classes: the columns of a row of logits; targets are in [0, num_classes).
        folder: the folder of the samples, if there is one.
    """

    kind: ClassVar[str]
    num_classes: int

    @property
    def folder(self) -> pathlib.Path | None:
        """The folder of the samples, if there is one."""
        return None

    @property
    def offers(self) -> dict[str, object]:
        """Values for parameters of networks and policies, by the parameter's name."""
        return {"num_classes": self.num_classes}

    @property
    def teacher_offers(self) -> dict[str, object]:
        """The same for the teacher, whose vocabulary may differ."""
        return self.offers

    def shrink(self) -> None:
        """Makes the samples of a trial smaller, where their size is a setting."""
        return None

    def check_teacher(self, other: "Dataset") -> None:
        """Raises ConfigError if a teacher trained on `other` cannot be used on this data set."""
        return None


class ImageDataset(Dataset):
    """Images of one shape, with one class each.

    Attributes:
        shape: (channels, height, width) of an image at the network's input.
        mean, std: per channel, of pixels in [0, 1].
    """

    shape: tuple[int, int, int]
    mean: Sequence[float]
    std: Sequence[float]


def data_path(given: str | None, environment: str, owner: str) -> pathlib.Path | None:
    """The path of the images: `owner.data_dir`, or the value of an environment variable.

    A tilde is expanded. Raises ConfigError if there is no such home directory.
    """
    if given:
        return user_path(given, f"{owner}.data_dir")
    path = os.environ.get(environment)
    return user_path(path, f"the environment variable {environment}") if path else None


def check_colors(owner: str, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raises ConfigError unless these are three means and three positive deviations."""
    expect(len(mean) == 3, owner, "mean", mean, "three numbers, one per color")
    fine = len(std) == 3 and all(value > 0 for value in std)
    expect(fine, owner, "std", std, "three numbers above 0, one per color")


class Takable(Protocol):
    """Images that can be indexed by a tensor."""

    def __len__(self) -> int: ...

    def take(self: "T", indices: Tensor) -> "T":
        """The images at the indices, in that order."""
        ...


T = TypeVar("T", bound=Takable)


@dataclass(frozen=True)
class ImageSplits(Generic[T]):
    """The splits of a data set.

    Attributes:
        validation: the validation split, taken from the training images, if any.
        notes: sentences for the user, such as what was left out.
    """

    train: T
    test: T
    validation: T | None = None
    notes: tuple[str, ...] = ()


def take_validation(train: T, count: int) -> tuple[T, T | None]:
    """Moves `count` training images to the validation split, the same images for all seeds."""
    if count == 0:
        return train, None
    order = torch.randperm(len(train), generator=generator("validation"))
    return train.take(order[count:].sort().values), train.take(order[:count].sort().values)


def digest(*parts: Tensor | np.ndarray[Any, Any] | bytes) -> str:
    """16 hexadecimal digits that depend on every byte of the parts, their shapes and order."""
    hashed = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            part = np.frombuffer(part, np.uint8)
        array = part.cpu().numpy() if isinstance(part, Tensor) else part
        hashed.update(f"{tuple(array.shape)}\n".encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()[:16]
