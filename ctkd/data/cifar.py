"""CIFAR-100 and CIFAR-10: 50,000 + 10,000 images of 32 × 32 pixels (Krizhevsky 2009).

The images are looked up in `data_dir`, or in the folder of the environment variable CTKD_DATA, as

    cifar100.npz            arrays train_images, train_labels, test_images, test_labels
    cifar-100-python/       torchvision's own files, their checksums checked
    train/CLASS/*.png, test/CLASS/*.png      image folders

in this order (cifar10.npz and cifar-10-batches-py for CIFAR-10).
"""

import contextlib
import os
import pathlib
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch

from ctkd.checks import expect
from ctkd.data.augment import CropFlip
from ctkd.data.dataset import check_colors, data_path, take_validation
from ctkd.data.folders import read_folders
from ctkd.data.in_memory import ResidentDataset, Split, Splits
from ctkd.data.integrity import check_split
from ctkd.errors import DataError
from ctkd.locks import locked
from ctkd.registry import DATASETS

ENVIRONMENT = "CTKD_DATA"
TRAIN_IMAGES, TEST_IMAGES = 50_000, 10_000
PARTS = {"train": TRAIN_IMAGES, "test": TEST_IMAGES}


class CIFAR(ResidentDataset):
    """The common part of the two data sets."""

    name: ClassVar[str]
    torchvision_folder: ClassVar[str]
    torchvision_class: ClassVar[str]
    shape = (3, 32, 32)

    def __init__(
        self,
        data_dir: str | None,
        download: bool,
        padding: int,
        flip: bool,
        validation: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """See `cifar100`. Raises ConfigError for a value out of range."""
        expect(padding >= 0, self.name, "padding", padding, "a number of pixels, 0 or more")
        fine = 0 <= validation < TRAIN_IMAGES
        expect(fine, self.name, "validation", validation, f"a number from 0 to {TRAIN_IMAGES - 1}")
        check_colors(self.name, mean, std)
        self.views = CropFlip(padding, flip)
        self.mean, self.std = mean, std
        self._given, self._download, self._validation = data_dir, download, validation

    def _path(self) -> pathlib.Path | None:
        """The user's folder or archive."""
        path = data_path(self._given, ENVIRONMENT, self.name)
        return pathlib.Path("data") if path is None and self._download else path

    @property
    def folder(self) -> pathlib.Path | None:
        """See `ResidentDataset`."""
        path = self._path()
        return path.parent if path is not None and path.suffix == ".npz" else path

    def load(self) -> Splits:
        """See `ResidentDataset`."""
        path = self._path()
        if path is None:
            raise DataError(self._advice("no folder was given for the images"))
        parts, notes = self._read(path)
        for name, split in parts.items():
            self._check(split, name, path)
        train, validation = take_validation(parts["train"], self._validation)
        return Splits(train, parts["test"], validation, notes)

    def _read(self, path: pathlib.Path) -> tuple[dict[str, Split], tuple[str, ...]]:
        archive = path if path.suffix == ".npz" else path / f"{self.name}.npz"
        if archive.is_file():
            return _read_npz(archive), ()
        if (path / self.torchvision_folder).is_dir() or self._download:
            return {name: self._read_torchvision(path, name) for name in PARTS}, ()
        if (path / "train").is_dir():
            return read_folders(path, self.num_classes, self.shape)
        state = "has no such files" if path.is_dir() else "does not exist"
        raise DataError(self._advice(f"{path} {state}"))

    def _read_torchvision(self, path: pathlib.Path, name: str) -> Split:
        import torchvision

        kind: Callable[..., object] = getattr(torchvision.datasets, self.torchvision_class)
        writes = self._download and (not path.exists() or os.access(path, os.W_OK))
        alone = locked(path / ".download.lock") if writes else contextlib.nullcontext()
        try:  # torchvision compares every file's md5 before it unpickles a file
            with alone:  # two processes would overwrite each other's archive
                read = kind(str(path), train=name == "train", download=self._download)
        except (RuntimeError, OSError, tarfile.TarError, EOFError, zlib.error) as error:
            folder = path / self.torchvision_folder
            raise DataError(self._advice(f"{folder} is incomplete or damaged ({error})")) from error
        images, targets = vars(read)["data"], vars(read)["targets"]
        return Split(torch.from_numpy(images), torch.tensor(targets, dtype=torch.int64))

    def _check(self, split: Split, name: str, path: pathlib.Path) -> None:
        owner = f"{path}, {name} split"
        check_split(owner, split, self.shape, self.num_classes)
        if len(split) != PARTS[name]:
            raise DataError(
                f"{owner}: {len(split):,} images: expected the {PARTS[name]:,} of {self.name}"
            )
        absent = set(range(self.num_classes)) - set(split.targets.tolist())
        if absent:
            raise DataError(f"{owner}: no image has one of the labels {sorted(absent)[:10]}")

    def _advice(self, problem: str) -> str:
        return (
            f"{self.name}: {problem}. Say where the images are, with --gin_param "
            f"\"data_dir = '/path'\" or the environment variable {ENVIRONMENT}: a folder that "
            f"contains {self.name}.npz, torchvision's {self.torchvision_folder}/, or "
            "train/CLASS/*.png and test/CLASS/*.png; or have torchvision download them: "
            "--gin_param 'download = True'"
        )


# The errors of numpy, zipfile and zlib for archives that are cut short or damaged; numpy reads an
# array's header as Python.
_BROKEN = (
    *(OSError, ValueError, TypeError, AttributeError, EOFError, RuntimeError, zlib.error),
    *(SyntaxError, tokenize.TokenError),
)


def _read_npz(path: pathlib.Path) -> dict[str, Split]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: (arrays[f"{name}_images"], arrays[f"{name}_labels"]) for name in PARTS}
    except KeyError as error:
        raise DataError(f"{path} lacks an array: {error.args[0]}") from error
    except (*_BROKEN, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is not a complete .npz archive: {error}; make or copy it again"
        ) from error
    for name, (images, labels) in found.items():
        if images.dtype != np.uint8 or labels.dtype.kind not in "iu":
            came = f"{images.dtype} images and {labels.dtype} labels"
            raise DataError(f"{path}: {name} has {came}: expected uint8 images and integer labels")
    return {
        name: Split(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))
        for name, (images, labels) in found.items()
    }


@DATASETS.register("cifar100", runtime=("data_dir", "download"))
class CIFAR100(CIFAR):
    """A hundred classes; 162 views: crops of 32 with padding 4, each also mirrored.

    Args:
        data_dir: the folder of the images; None reads the environment variable CTKD_DATA.
        download: whether torchvision may download them there (without a folder: to ./data).
        padding, flip: the views.
        validation: size of the validation split, training images that are the same for every seed.
        mean, std: per color, of pixels in [0, 1]; the usual values of the distillation literature.
            Weights from other sources may need others: chenyaofo's (.5070, .4865, .4409) and
            (.2673, .2564, .2761).
    """

    name = "cifar100"
    num_classes = 100
    torchvision_folder = "cifar-100-python"
    torchvision_class = "CIFAR100"

    def __init__(
        self,
        data_dir: str | None = None,
        download: bool = False,
        padding: int = 4,
        flip: bool = True,
        validation: int = 0,
        mean: Sequence[float] = (0.5071, 0.4867, 0.4408),
        std: Sequence[float] = (0.2675, 0.2565, 0.2761),
    ) -> None:
        super().__init__(data_dir, download, padding, flip, validation, mean, std)


@DATASETS.register("cifar10", runtime=("data_dir", "download"))
class CIFAR10(CIFAR):
    """Ten classes; otherwise as `CIFAR100`."""

    name = "cifar10"
    num_classes = 10
    torchvision_folder = "cifar-10-batches-py"
    torchvision_class = "CIFAR10"

    def __init__(
        self,
        data_dir: str | None = None,
        download: bool = False,
        padding: int = 4,
        flip: bool = True,
        validation: int = 0,
        mean: Sequence[float] = (0.4914, 0.4822, 0.4465),
        std: Sequence[float] = (0.2470, 0.2435, 0.2616),
    ) -> None:
        super().__init__(data_dir, download, padding, flip, validation, mean, std)
