"""COCO 2017 and data sets in its layout: pictures with boxes.

DATA_DIR/annotations/instances_train2017.json    DATA_DIR/train2017/*.jpg
DATA_DIR/annotations/instances_val2017.json      DATA_DIR/val2017/*.jpg
"""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ctkd.checks import expect
from ctkd.data.coco_faults import Faults
from ctkd.data.coco_json import Annotated, read_annotations, read_names
from ctkd.data.dataset import Dataset, place_of
from ctkd.data.pictures import read_picture
from ctkd.errors import DataError
from ctkd.registry import DATASETS

ENVIRONMENT = "CTKD_COCO"
AS_IT_IS = -1  # the view of a picture that is neither resized nor mirrored


@dataclass(frozen=True)
class Sample:
    """A picture [3, H, W] of bytes, and its boxes and labels in it."""

    index: int
    view: int
    picture: Tensor
    targets: dict[str, Tensor]

    def pin_memory(self) -> "Sample":
        """A copy in memory that a GPU can fetch from by itself."""
        pinned = {name: value.pin_memory() for name, value in self.targets.items()}
        return replace(self, picture=self.picture.pin_memory(), targets=pinned)


@dataclass(frozen=True)
class Reader:
    """Makes samples; plain data, so that it can be sent to workers."""

    split: Annotated
    short_sides: Sequence[int]
    long_side: int
    flip: bool

    def __call__(self, index: int, view: int) -> Sample | DataError:
        """The picture as `view` has it: its short side and whether it is mirrored.

        What cannot be read is returned, to be raised where the user is told: an exception would
        come out of a worker with the worker's traceback in it.
        """
        width, height = self.split.sizes[index].tolist()
        try:
            picture = read_picture(self.split.paths[index], width, height)
        except DataError as error:
            return error
        targets = self.split.targets(index)
        if view == AS_IT_IS:
            return Sample(index, view, picture, targets)
        chance = torch.Generator().manual_seed(view)
        side = self.short_sides[int(torch.randint(len(self.short_sides), (), generator=chance))]
        mirrored = self.flip and bool(torch.rand((), generator=chance) < 0.5)
        picture, boxes = resize(picture, targets["boxes"], side, self.long_side)
        if mirrored:
            picture = picture.flip(-1)
            boxes = boxes[:, [2, 1, 0, 3]] * boxes.new_tensor([-1, 1, -1, 1])
            boxes = boxes + boxes.new_tensor([1, 0, 1, 0]) * picture.shape[-1]
        return Sample(index, view, picture, {"boxes": boxes, "labels": targets["labels"]})


def resize(picture: Tensor, boxes: Tensor, short: int, long: int) -> tuple[Tensor, Tensor]:
    """Brings the short side to `short`, but the long one to at most `long`, boxes along with it.

    Bilinear without antialiasing, as torchvision's detectors resize what they are judged on.
    """
    height, width = picture.shape[-2:]
    scale = min(short / min(height, width), long / max(height, width))
    size = (max(1, int(height * scale)), max(1, int(width * scale)))
    resized = F.interpolate(picture[None], size=size, mode="bilinear", align_corners=False)[0]
    factors = boxes.new_tensor([size[1] / width, size[0] / height]).repeat(2)
    return resized, boxes * factors


@dataclass(frozen=True)
class Splits:
    """What is trained on, and what is judged by."""

    train: Annotated
    test: Annotated


@DATASETS.register("coco", runtime=("data_dir", "per_class"))
class COCO(Dataset):
    """Boxes of 80 categories in pictures of any size.

    Args:
        data_dir: the folder above `annotations/`; None asks the environment variable CTKD_COCO.
        train, test: the splits' names, of folders and of `instances_NAME.json`.
        categories: how many there are. A row of class logits has one more, its first, for the
            background.
        labels: "ranks" numbers the categories 1 to 80 by their ids' order; "ids" leaves them COCO's
            ids, 1 to 90 (`categories` 90), as the detectors that torchvision offers have them.
        short_sides: pixels, of which training draws one for each picture and pass.
        long_side: pixels, at most, in training and when judged.
        test_side: the short side when judged.
        flip: whether training mirrors every other picture.
        empty_pictures: whether pictures without a box are trained on too.
        train_pictures, test_pictures: only so many first ones, for trying things out; None for all.
        faults: "refuse" or "skip" what is wrong with the annotations; see `read_annotations`.
        per_class: whether every category's AP is told too.

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
        return place_of(self._given, ENVIRONMENT, "coco")

    @property
    def offers(self) -> dict[str, object]:
        """A detector resizes what it is judged on as the data set says."""
        return {**super().offers, "min_size": self.test_side, "max_size": self.long_side}

    def load(self) -> Splits:
        """Reads the annotations, and sees whether the pictures are there.

        Raises:
            DataError: something is missing or damaged.
        """
        if self.folder is None:
            raise DataError(self._advice("no place was given for the pictures"))
        if not self.folder.is_dir():
            raise DataError(self._advice(f"{self.folder} does not exist"))
        train, test = (self._read(self.folder, name) for name in self._names)
        if train.category_ids != test.category_ids or train.names != test.names:
            raise DataError(f"{self.folder}: the two splits' categories differ")
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
        return Splits(train, test)

    def class_names(self) -> dict[int, str]:
        """Of every target, as the test split's json has them. Raises DataError without it."""
        if self.folder is None:
            raise DataError(self._advice("no place was given for the annotations"))
        file = self.folder / "annotations" / f"instances_{self._names[1]}.json"
        return read_names(file, self._categories, self._by_id)

    def reader(self, split: Annotated) -> Reader:
        """What makes samples of a split."""
        # Nothing to score by: hundreds of megabytes, which every worker would be sent.
        slim = replace(split, truth={})
        return Reader(slim, self.short_sides, self.long_side, self.flip)

    def _read(self, folder: pathlib.Path, name: str) -> Annotated:
        file = folder / "annotations" / f"instances_{name}.json"
        if not file.is_file():
            raise DataError(self._advice(f"{file} does not exist"))
        return read_annotations(file, folder / name, self._categories, self._by_id, self._faults)

    def _advice(self, problem: str) -> str:
        train, test = self._names
        return (
            f"coco: {problem}. Say where the pictures are, with --gin_param \"data_dir = '/path'\" "
            f"or the environment variable {ENVIRONMENT}: a folder that holds {train}/, {test}/, "
            f"annotations/instances_{train}.json and annotations/instances_{test}.json"
        )
