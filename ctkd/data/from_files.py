"""Image data sets too large for memory: lists of files, which are read during training."""

import abc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctkd.data.dataset import ImageDataset, ImageSplits
from ctkd.data.decoding import BadImageError, CenterCrop, RandomCrop, decode
from ctkd.data.rand_augment import RandAugment
from ctkd.errors import DataError
from ctkd.seeds import generator, seed_of

PIECE = 2**18  # numbers normalized at a time on a CPU: 1 MiB of float32


@dataclass(frozen=True)
class ImageFiles:
    """The files of a split below `root`, and their classes.

    The names are in one array of bytes, ending at `ends`: a million Python strings would be copied
    into every worker, page by page, because reference counts change.
    """

    root: str
    names: bytes
    ends: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, root: str, names: Sequence[str], targets: Sequence[int]) -> "ImageFiles":
        """Packs the names, which are relative to `root`.

        Raises:
            DataError: a target is not a whole number.
        """
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        labels = np.asarray(targets)
        if len(labels) and labels.dtype.kind not in "iu":
            raise DataError(
                f"the labels of the images in {root} are {labels.dtype} {list(labels.shape)}: "
                "expected one whole number for each image"
            )
        return cls(root, b"".join(encoded), ends, labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.targets)

    def __str__(self) -> str:
        return f"images in {self.root}"

    def path(self, index: int) -> str:
        """The path of the image at an index."""
        start = self.ends[index - 1] if index else 0
        return os.path.join(self.root, os.fsdecode(self.names[start : self.ends[index]]))

    def take(self, indices: Tensor) -> "ImageFiles":
        """The part with these indices, in that order."""
        chosen = indices.tolist()
        start = [int(self.ends[i - 1]) if i else 0 for i in chosen]
        names = [self.names[s : self.ends[i]] for s, i in zip(start, chosen, strict=True)]
        ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        return ImageFiles(self.root, b"".join(names), ends, self.targets[indices.numpy()])


FileSplits = ImageSplits[ImageFiles]


class StreamedDataset(ImageDataset):
    """A data set of image files.

    Attributes:
        augmentation: for training images; a view is an integer that decides crop and flip.
        presentation: for validation and test images.
        max_bad: how many unreadable files a run accepts.
    """

    kind = "streamed"
    augmentation: RandomCrop
    presentation: CenterCrop
    max_bad: int

    @abc.abstractmethod
    def load(self) -> FileSplits:
        """Lists the files. Raises DataError if they are missing."""


class Sample(NamedTuple):
    """A worker's result for an item.

    Attributes:
        pixels: [3, S, S], bytes.
        target: its class; -1 where no image could be read.
        bad: one sentence for each file that could not be read.
        strong: the strong view, as `pixels`; None without one.
    """

    pixels: Tensor
    target: int
    bad: tuple[str, ...] = ()
    strong: Tensor | None = None


class Samples(NamedTuple):
    """A batch of samples: [B, 3, S, S] in channels-last order, [B], and all errors.

    `strong` holds the strong views, as `pixels`; None without them.
    """

    pixels: Tensor
    targets: Tensor
    bad: tuple[str, ...]
    strong: Tensor | None = None


class PixelTransform(Protocol):
    """Pixels [3, H, W] and a view to [3, size, size], uint8."""

    @property
    def size(self) -> int:
        """The side of the square."""
        ...

    def __call__(self, pixels: Tensor, view: int) -> Tensor:
        """The pixels of the view."""
        ...


@dataclass(frozen=True)
class Reader:
    """Makes a sample from an index and a view, in any process.

    If a file cannot be read, the image of the next file replaces it, in the same view and with its
    own class. So a step keeps its size, and the replacement does not depend on workers.

    Attributes:
        tries: how many files are tried; 1 replaces nothing.
        augment: makes a strong view of another crop of the image; None for no strong view.
    """

    modules: ClassVar = ("torchvision.io", "torchvision.transforms.v2.functional")  # see `stream`
    files: ImageFiles
    transform: PixelTransform
    tries: int = 1
    augment: RandAugment | None = None

    def __call__(self, index: int, view: int) -> Sample:
        """The sample, its pixels cut and resized."""
        bad: list[str] = []
        for offset in range(min(self.tries, len(self.files))):
            tried = (index + offset) % len(self.files)
            try:
                image = decode(self.files.path(tried))
            except BadImageError as error:
                bad.append(str(error))
            else:
                target, strong = int(self.files.targets[tried]), self._strong(image, view)
                return Sample(self.transform(image, view), target, tuple(bad), strong)
        size = self.transform.size
        blank = torch.zeros(3, size, size, dtype=torch.uint8)
        return Sample(blank, -1, tuple(bad), None if self.augment is None else blank)

    def _strong(self, image: Tensor, view: int) -> Tensor | None:
        """The strong view that belongs to a plain view: another crop, then the augmentation."""
        if self.augment is None:
            return None
        other = seed_of("strong", view)
        numbers = torch.rand(1, self.augment.numbers, generator=generator("strong", view))
        return self.augment(self.transform(image, other)[None], numbers)[0]


class Normalization:
    """(x/255 - mean)/std of a batch of bytes, as one multiplication and one addition."""

    def __init__(self, dataset: ImageDataset, device: torch.device) -> None:
        """Computes both once, for images of the data set's width."""
        std = torch.tensor(dataset.std, device=device)
        mean = torch.tensor(dataset.mean, device=device)
        # For a whole row of pixels: colors are innermost, and three numbers fill no vector.
        width = dataset.shape[2]
        self._scale, self._shift = (1 / (255 * std)).repeat(width), (-mean / std).repeat(width)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Bytes [B, 3, H, W], channels last -> float32 of the same shape and order."""
        batch, colors, height, width = pixels.shape
        rows = pixels.permute(0, 2, 3, 1).reshape(batch * height, width * colors)
        normal = torch.empty(rows.shape, device=rows.device)
        # On a CPU a piece at a time, which stays in the cache during its three passes. Not
        # torch.addcmul, which needs only one pass: it rounds differently at the end of a piece, so
        # that pixels would depend on how a batch is cut.
        piece = max(1, PIECE // rows.shape[1]) if rows.device.type == "cpu" else len(rows)
        for read, written in zip(torch.split(rows, piece), torch.split(normal, piece), strict=True):
            written.copy_(read).mul_(self._scale).add_(self._shift)
        return normal.view(batch, height, width, colors).permute(0, 3, 1, 2)


def collate(samples: Sequence[Sample]) -> Samples:
    """A batch of samples, with pixels in channels-last order for the convolutions."""
    targets = torch.tensor([sample.target for sample in samples])
    bad = tuple(problem for sample in samples for problem in sample.bad)
    strong = [sample.strong for sample in samples if sample.strong is not None]
    pixels = _channels_last([sample.pixels for sample in samples])
    return Samples(pixels, targets, bad, _channels_last(strong) if strong else None)


def _channels_last(images: Sequence[Tensor]) -> Tensor:
    """Images [3, S, S] as a batch [B, 3, S, S]."""
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
