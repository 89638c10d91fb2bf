"""What every data set tells before it is read."""

import abc
import pathlib
from collections.abc import Sequence
from typing import ClassVar


class Dataset(abc.ABC):
    """A data set; making one needs no data.

    Attributes:
        kind: what its samples are, which decides the task that is made of it.
        num_classes: the columns of a row of logits; targets lie in [0, num_classes).
        folder: where the samples lie, as far as there is such a place.
    """

    kind: ClassVar[str]
    num_classes: int

    @property
    def folder(self) -> pathlib.Path | None:
        """See above."""
        return None

    @property
    def offers(self) -> dict[str, object]:
        """Values for those parameters of networks and policies that have these names."""
        return {"num_classes": self.num_classes}


class ImageDataset(Dataset):
    """One class to an image, all images of one shape.

    Attributes:
        shape: (channels, height, width), as the networks see an image.
        mean, std: per channel, of pixels in [0, 1].
    """

    shape: tuple[int, int, int]
    mean: Sequence[float]
    std: Sequence[float]
