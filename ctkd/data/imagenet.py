"""ImageNet (ILSVRC 2012): 1.28 million training and 50,000 validation images of 1,000 classes.

The files are in `data_dir`, or in the folder of the environment variable CTKD_DATA:

    train/WNID/*.JPEG, val/WNID/*.JPEG        class folders, numbered by their names' order

or in lists with one line `path class` per image, paths relative to `data_dir`; use a list for
ILSVRC's flat folder of validation images. Papers report on these 50,000 "val" images, so they are
the test split here.
"""

import pathlib
from collections.abc import Sequence

from ctkd.checks import expect, finite
from ctkd.data.dataset import check_colors, data_path, take_validation
from ctkd.data.decoding import CenterCrop, RandomCrop
from ctkd.data.folders import class_folders, list_files, order_note
from ctkd.data.from_files import FileSplits, ImageFiles, StreamedDataset
from ctkd.errors import DataError
from ctkd.files import NotUTF8Error, expand_user, read_text
from ctkd.registry import DATASETS

ENVIRONMENT = "CTKD_DATA"
LAYOUT = "train/WNID/*.JPEG and val/WNID/*.JPEG"


@DATASETS.register("imagenet", runtime=("data_dir", "max_bad"))
class ImageNet(StreamedDataset):
    """ImageNet, or any other set of images in its layout.

    Args:
        data_dir: the folder of the images; None reads the environment variable CTKD_DATA.
        train_list, val_list: files of lines `path class` instead of the folders; a relative name
            is relative to `data_dir`.
        num_classes: 1000, or the number of class folders of another data set.
        size: side of the square that the networks see, in pixels.
        resize: the shorter side of a test image before the center crop.
        scale, ratio: ranges of the random crop's share of the area, and of its width over height.
        flip: whether half the views are mirrored.
        validation: size of the validation split, training images that are the same for every seed.
        max_bad: up to this number, unreadable files are named, counted and replaced (in training,
            each by the next image of the list) or left out (in a test); one more ends the run.
        mean, std: per color, of pixels in [0, 1].
    """

    def __init__(
        self,
        data_dir: str | None = None,
        train_list: str | None = None,
        val_list: str | None = None,
        num_classes: int = 1000,
        size: int = 224,
        resize: int = 256,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        flip: bool = True,
        validation: int = 0,
        max_bad: int = 10,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        """Takes the settings; nothing is read. Raises ConfigError for a value out of range."""
        for name, value, least in (
            ("num_classes", num_classes, 2),
            ("size", size, 1),
            ("validation", validation, 0),
            ("max_bad", max_bad, 0),
        ):
            expect(value >= least, "imagenet", name, value, f"a number of {least} or more")
        expect(resize >= size, "imagenet", "resize", resize, f"at least imagenet.size = {size}")
        fine = len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1
        expect(fine, "imagenet", "scale", scale, "two rising shares of the area, above 0, up to 1")
        fine = len(ratio) == 2 and 0 < ratio[0] <= ratio[1] and finite(ratio[1])
        expect(fine, "imagenet", "ratio", ratio, "two rising numbers above 0")
        check_colors("imagenet", mean, std)
        self.num_classes, self.shape, self.mean, self.std = num_classes, (3, size, size), mean, std
        self.augmentation = RandomCrop(size, (scale[0], scale[1]), (ratio[0], ratio[1]), flip)
        self.presentation = CenterCrop(size, resize)
        self.max_bad = max_bad
        self._given, self._lists = data_dir, {"train": train_list, "val": val_list}
        self._validation = validation

    @property
    def folder(self) -> pathlib.Path | None:
        """See `Dataset`."""
        return data_path(self._given, ENVIRONMENT, "imagenet")

    def load(self) -> FileSplits:
        """See `StreamedDataset`."""
        root = self.folder
        if root is None:
            raise DataError(self._advice("no folder was given for the images"))
        if not root.is_dir():
            raise DataError(
                self._advice(f"{root} {'is not a folder' if root.exists() else 'does not exist'}")
            )
        notes: list[str] = []
        parts = {name: self._part(root, name, notes) for name in ("train", "val")}
        if self._validation >= len(parts["train"]):
            raise DataError(
                f"imagenet.validation = {self._validation}: {root} has {len(parts['train'])} "
                "training images"
            )
        train, validation = take_validation(parts["train"], self._validation)
        return FileSplits(train, parts["val"], validation, tuple(notes))

    def _part(self, root: pathlib.Path, name: str, notes: list[str]) -> ImageFiles:
        """The files of a part; adds remarks for the user to `notes`."""
        listed = self._lists[name]
        if listed is not None:
            return self._from_list(root, root / expand_user(listed, f"imagenet.{name}_list"))
        folder = root / name
        if not folder.is_dir():
            raise DataError(self._advice(f"{root} has no folder {name}/"))
        classes = class_folders(folder)
        if len(classes) != self.num_classes:
            flat = "; its images are not in class folders" if not classes else ""
            raise DataError(
                self._advice(
                    f"{folder} has {len(classes)} class folders{flat}, imagenet.num_classes is "
                    f"{self.num_classes}"
                )
            )
        if name == "val" and self._lists["train"] is None:
            only = sorted(set(classes) ^ set(class_folders(root / "train")))
            if only:
                raise DataError(f"{root}: train/ and val/ differ in the classes {only[:10]}")
        files = list_files(folder, classes)
        notes += [order_note(classes)] if name == "train" else []
        notes += files.notes
        return ImageFiles.of(str(folder), files.names, files.targets)

    def _from_list(self, root: pathlib.Path, path: pathlib.Path) -> ImageFiles:
        try:
            lines = read_text(path).split("\n")
        except (OSError, NotUTF8Error) as error:
            raise DataError(f"the list {path} cannot be read: {error}") from error
        names, targets = [], []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            name, _, label = line.strip().rpartition(" ")
            if not (name and label.isdecimal() and int(label) < self.num_classes):
                raise DataError(
                    f"{path}, line {number}: {line!r}: expected a path, a space and a class from "
                    f"0 to {self.num_classes - 1}"
                )
            names.append(name.strip())
            targets.append(int(label))
        if not names:
            raise DataError(f"the list {path} is empty")
        if not (root / names[0]).is_file():
            raise DataError(
                f"{path} lists {names[0]}, which is not in {root}: paths are relative to it"
            )
        return ImageFiles.of(str(root), names, targets)

    def _advice(self, problem: str) -> str:
        return (
            f'imagenet: {problem}. Say where the images are, with --gin_param "data_dir = '
            f"'/path'\" or the environment variable {ENVIRONMENT}: a folder with {LAYOUT} "
            f"({self.num_classes} class folders in each), or give lists of lines `path class`: "
            "imagenet.train_list, imagenet.val_list"
        )
