"""COCO 2017 and data sets in its layout: pictures with boxes.

DATA_DIR/annotations/instances_train2017.json    DATA_DIR/train2017/*.jpg
DATA_DIR/annotations/instances_val2017.json      DATA_DIR/val2017/*.jpg
"""

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ctkd.checks import expect
from ctkd.data.coco_faults import Faults
from ctkd.data.coco_json import read_annotations, read_names
from ctkd.data.coco_pictures import Found, checked
from ctkd.data.coco_split import Annotated, DetectionSplits
from ctkd.data.coco_values import shown
from ctkd.data.dataset import Dataset, data_path
from ctkd.data.pictures import read_picture
from ctkd.errors import DataError
from ctkd.registry import DATASETS

TRIAL_SIDE = 256  # pixels: a forward pass of a picture costs a tenth of one at 800
ENVIRONMENT = "CTKD_COCO"
AS_IT_IS = -1  # the view of a picture that is neither resized nor mirrored
TRIES = 10  # pictures that are tried for a sample where faults are skipped


@dataclass(frozen=True)
class PictureSample:
    """A picture [3, H, W] of bytes, and its boxes and labels in it.

    Attributes:
        bad: one sentence for each unreadable picture that this one replaces.
    """

    index: int
    view: int
    picture: Tensor
    targets: dict[str, Tensor]
    bad: tuple[str, ...] = ()

    def pin_memory(self) -> "PictureSample":
        """A copy in page-locked memory, from which a GPU copies without waits."""
        pinned = {name: value.pin_memory() for name, value in self.targets.items()}
        return replace(self, picture=self.picture.pin_memory(), targets=pinned)


@dataclass(frozen=True)
class PictureReader:
    """Makes samples; plain data, so that it can be sent to workers.

    Attributes:
        tries: how many pictures are tried for a training sample. If a picture cannot be read, the
            next one replaces it, in the same view, so that a step keeps its size and the
            replacement does not depend on workers. 1 replaces nothing.
    """

    split: Annotated
    short_sides: Sequence[int]
    long_side: int
    flip: bool
    tries: int = 1

    def __call__(self, index: int, view: int) -> PictureSample | DataError:
        """The picture in a view: `view` gives its short side and whether it is mirrored.

        An error is returned, and the caller raises it: an exception from a worker would include
        the worker's traceback. A picture of the test split is never replaced.
        """
        bad: list[str] = []
        count = len(self.split)
        tries = 1 if view == AS_IT_IS else min(self.tries, count)
        for offset in range(tries):
            try:
                sample = self._read((index + offset) % count, view)
            except DataError as error:
                if offset + 1 == tries:
                    return error
                bad.append(str(error))
            else:
                return replace(sample, bad=tuple(bad)) if bad else sample
        raise AssertionError("a sample or an error was returned")

    def _read(self, index: int, view: int) -> PictureSample:
        width, height = self.split.sizes[index].tolist()
        path, upright = self.split.paths[index], self.split.upright
        picture = read_picture(path, width, height, upright=upright)
        targets = self.split.targets(index)
        if view == AS_IT_IS:
            return PictureSample(index, view, picture, targets)
        chance = torch.Generator().manual_seed(view)
        side = self.short_sides[int(torch.randint(len(self.short_sides), (), generator=chance))]
        mirrored = self.flip and bool(torch.rand((), generator=chance) < 0.5)
        picture, boxes = resize(picture, targets["boxes"], side, self.long_side)
        if mirrored:
            picture = picture.flip(-1)
            boxes = boxes[:, [2, 1, 0, 3]] * boxes.new_tensor([-1, 1, -1, 1])
            boxes = boxes + boxes.new_tensor([1, 0, 1, 0]) * picture.shape[-1]
        return PictureSample(index, view, picture, {"boxes": boxes, "labels": targets["labels"]})


def resize(picture: Tensor, boxes: Tensor, short: int, long: int) -> tuple[Tensor, Tensor]:
    """Resizes a picture to a short side of `short`, less if the long side would exceed `long`.

    Returns it with its scaled boxes. Bilinear without antialiasing, as torchvision's detectors
    resize pictures for evaluation.
    """
    height, width = picture.shape[-2:]
    scale = min(short / min(height, width), long / max(height, width))
    size = (max(1, int(height * scale)), max(1, int(width * scale)))
    resized = F.interpolate(picture[None], size=size, mode="bilinear", align_corners=False)[0]
    factors = boxes.new_tensor([size[1] / width, size[0] / height]).repeat(2)
    return resized, boxes * factors


@DATASETS.register("coco", runtime=("data_dir", "per_class"))
class COCO(Dataset):
    """Boxes of 80 categories in pictures of any size.

    Args:
        data_dir: the folder above `annotations/`; None reads the environment variable CTKD_COCO.
        train, test: the names of the splits' folders, and of `instances_NAME.json`.
        categories: the number of categories. A row of class logits has one more column, the
            first, for the background.
        labels: "ranks" numbers the categories 1 to 80 in the order of their ids, which may begin
            with 0; "ids" takes COCO's ids, 1 to 90 (`categories` 90), as torchvision's detectors
            do.
        short_sides: in pixels; training draws one for each picture and pass.
        long_side: the largest long side in training and evaluation, in pixels.
        test_side: the short side in evaluation, in pixels.
        flip: whether training mirrors half of the pictures at random.
        empty_pictures: whether training uses pictures without a box.
        train_pictures, test_pictures: use only this many first pictures, for a trial; None for all.
        faults: "refuse" or "skip" faulty annotations and pictures; see `read_annotations` and
            `coco_pictures`.
        per_class: whether to report the AP of every category.

    Raises:
        ConfigError: a value out of range.
    """

    kind = "detection"

    def __init__(
        self,
        data_dir: str | None = None,
        train: str = "train2017",
        test: str = "val2017",
        categories: int = 80,
        labels: Literal["ranks", "ids"] = "ranks",
        short_sides: Sequence[int] = (640, 672, 704, 736, 768, 800),
        long_side: int = 1333,
        test_side: int = 800,
        flip: bool = True,
        empty_pictures: bool = False,
        train_pictures: int | None = None,
        test_pictures: int | None = None,
        faults: Faults = "refuse",
        per_class: bool = False,
    ) -> None:
        expect(categories >= 1, "coco", "categories", categories, "a number of 1 or more")
        fine = len(short_sides) > 0 and all(side >= 32 for side in short_sides)
        expect(fine, "coco", "short_sides", short_sides, "numbers of pixels, 32 or more")
        expect(test_side >= 32, "coco", "test_side", test_side, "a number of pixels, 32 or more")
        fine = long_side >= max([*short_sides, test_side])
        expect(fine, "coco", "long_side", long_side, "at least the longest short side")
        for name, count in (("train_pictures", train_pictures), ("test_pictures", test_pictures)):
            fine = count is None or count >= 1
            expect(fine, "coco", name, count, "None or a number of 1 or more")
        self.num_classes = categories + 1
        self.short_sides, self.long_side, self.test_side = short_sides, long_side, test_side
        self.flip, self.per_class = flip, per_class
        self._given, self._names = data_dir, (train, test)
        self._categories, self._by_id, self._faults = categories, labels == "ids", faults
        self._empty, self._counts = empty_pictures, (train_pictures, test_pictures)

    @property
    def folder(self) -> pathlib.Path | None:
        """See `Dataset`."""
        return data_path(self._given, ENVIRONMENT, "coco")

    @property
    def offers(self) -> dict[str, object]:
        """Copies the data set's sides to the detector, which resizes pictures for evaluation."""
        return {**super().offers, "min_size": self.test_side, "max_size": self.long_side}

    def shrink(self) -> None:
        """See `Dataset`."""
        self.short_sides = [min(side, TRIAL_SIDE) for side in self.short_sides]
        self.test_side = min(self.test_side, TRIAL_SIDE)
        self.long_side = min(self.long_side, 2 * TRIAL_SIDE)

    def load(self) -> DetectionSplits:
        """Reads the annotations, and checks that the pictures' files exist.

        Raises:
            DataError: something is missing or damaged.
        """
        if self.folder is None:
            raise DataError(self._advice("no folder was given for the pictures"))
        if not self.folder.is_dir():
            raise DataError(self._advice(f"{self.folder} does not exist"))
        train, test = (self._read(self.folder, name) for name in self._names)
        if train.category_ids != test.category_ids or train.names != test.names:
            differing = _difference(train, test, self._names)
            raise DataError(f"{self.folder}: the two splits' categories differ: {differing}")
        if not self._empty:
            filled = (train.starts[1:] > train.starts[:-1]).nonzero().flatten().tolist()
            if not filled:
                raise DataError(f"{self.folder}: none of the training pictures has a box")
            empty = len(train) - len(filled)
            if empty:
                train.passed_over["pictures without a box"] = empty
            train = train.taking(filled) if empty else train
        counts = self._counts
        train, test = (
            split if count is None else split.taking(list(range(min(count, len(split)))))
            for split, count in zip((train, test), counts, strict=True)
        )
        return DetectionSplits(train, test)

    def checked(
        self,
        splits: DetectionSplits,
        part: slice = slice(None),
        gather: Callable[[Found], list[Found]] = lambda found: [found],
    ) -> DetectionSplits:
        """The splits after a check of every picture; see `coco_pictures.checked`.

        Raises:
            DataError: there is a fault and faults are refused, or no picture remains.
        """
        return checked(splits, self._faults, part, gather)

    def class_names(self) -> dict[int, str]:
        """The name of every target, from the test split's json. Raises DataError without it."""
        if self.folder is None:
            raise DataError(self._advice("no folder was given for the annotations"))
        file = self.folder / "annotations" / f"instances_{self._names[1]}.json"
        return read_names(file, self._categories, self._by_id)

    def reader(self, split: Annotated) -> PictureReader:
        """A reader of the samples of a split."""
        # Without the ground truth: every worker would get a copy of hundreds of megabytes.
        slim = replace(split, truth={})
        tries = TRIES if self._faults == "skip" else 1
        return PictureReader(slim, self.short_sides, self.long_side, self.flip, tries)

    def _read(self, folder: pathlib.Path, name: str) -> Annotated:
        file = folder / "annotations" / f"instances_{name}.json"
        if not file.is_file():
            raise DataError(self._advice(f"{file} does not exist"))
        return read_annotations(file, folder / name, self._categories, self._by_id, self._faults)

    def _advice(self, problem: str) -> str:
        train, test = self._names
        return (
            f"coco: {problem}. Say where the pictures are, with --gin_param \"data_dir = '/path'\" "
            f"or the environment variable {ENVIRONMENT}: a folder with {train}/, {test}/, "
            f"annotations/instances_{train}.json and annotations/instances_{test}.json"
        )


def _difference(train: Annotated, test: Annotated, names: tuple[str, str]) -> str:
    """The first category in which the splits differ, in words."""
    for label in sorted(train.names.keys() | test.names.keys()):
        found = [
            f"id {shown(split.category_ids.get(label))}, name {shown(split.names.get(label))}"
            for split in (train, test)
        ]
        if found[0] != found[1]:
            return f"label {label} is {found[0]} in {names[0]}, but {found[1]} in {names[1]}"
    return "their order differs"
