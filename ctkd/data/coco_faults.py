"""Faults of COCO's annotations: an error names them, or they are left out and counted."""

import pathlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ctkd.data.coco_values import Entry, Id, is_id, number, referred, shown
from ctkd.errors import DataError

Faults = Literal["refuse", "skip"]
ROUNDING = 1.0  # pixels by which a box may exceed its picture: COCO's boxes are rounded
NAMED = 3  # faults that a message names
KEPT = 5  # left-out entries that a note names
NORMALIZED = 1 + 1e-4  # the right or lower edge of a normalized box, after rounding
SKIP = "--gin_param \"coco.faults = 'skip'\""


@dataclass
class Counted:
    """Counts the faults of a file or a folder of pictures, and the entries left out."""

    file: pathlib.Path
    faults: Faults
    remedy: str = "Correct the file"
    notes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, what: str) -> None:
        """Counts an entry that is left out but is not a fault."""
        self.notes[what] += 1

    def fault(self, what: str, where: str) -> None:
        """Counts a fault, and keeps its location."""
        self.note(what)
        self.examples.setdefault(what, []).append(where)

    def raise_faults(self) -> None:
        """Raises DataError if there are faults and faults are refused."""
        if self.faults == "skip" or not self.examples:
            return
        lines = [
            f"{len(found)} {what}: {joined(found, NAMED)}" for what, found in self.examples.items()
        ]
        raise DataError(
            f"{self.file}: {'; '.join(lines)}. {self.remedy}, or leave these out and "
            f"count them: {SKIP}"
        )


def joined(names: list[str], most: int) -> str:
    """The first names, and the number of the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f", and {more} more" if more > 0 else "")


class Listed(NamedTuple):
    """The images and categories that annotations refer to.

    Attributes:
        images: the images whose picture file exists, by id.
        known: the ids of all listed images.
        labels: the label of every category id.
        image_texts, category_texts: whether the listed ids are texts.
    """

    images: dict[Id, Entry]
    known: set[Id]
    labels: dict[Id, int]
    image_texts: bool
    category_texts: bool


class Fault(NamedTuple):
    """A fault of an annotation: its kind, in the plural, and the value found."""

    what: str
    came: str


class Parsed(NamedTuple):
    """An annotation whose values have been checked; `area` is None where it must be computed."""

    image: Id
    category: Id
    box: list[int | float]
    area: int | float | None
    crowd: bool


def parse(annotation: Entry, listed: Listed) -> Parsed | Fault:
    """The annotation's values, or its fault."""
    for key in ("image_id", "category_id"):
        if key in annotation and not is_id(annotation[key]):
            return _fault(
                "annotations with an id that is neither a whole number nor text", annotation, key
            )
    crowd, area = number(annotation.get("iscrowd", 0)), number(annotation.get("area", 0))
    if "iscrowd" in annotation and isinstance(annotation["iscrowd"], bool):
        crowd = int(annotation["iscrowd"])
    if crowd not in (0, 1):
        return _fault("annotations with an iscrowd that is not 0 or 1", annotation, "iscrowd")
    if area is None:
        return _fault("annotations with an area that is not a number", annotation, "area")
    image = referred(annotation.get("image_id"), listed.image_texts)
    if image is None or image not in listed.known:
        return _fault("annotations of an image that is not listed", annotation, "image_id")
    category = referred(annotation.get("category_id"), listed.category_texts)
    if category is None or category not in listed.labels:
        return _fault("annotations of a category that is not listed", annotation, "category_id")
    came = annotation.get("bbox")
    box = [number(value) for value in came] if isinstance(came, list) else []
    numbers = [value for value in box if value is not None]
    if len(box) != 4 or len(numbers) != 4:
        return _fault("annotations without a box of four numbers", annotation, "bbox")
    shape = listed.images.get(image)
    if shape is not None and _over(numbers, shape) > ROUNDING:
        size = f" in {shape['width']} × {shape['height']} pixels"
        return Fault("boxes outside their picture", f"bbox {shown(came)}{size}")
    # Exporters write 0 or -1 for an unknown area; pycocotools would sort the box by that.
    return Parsed(image, category, numbers, area if area > 0 else None, crowd == 1)


def _fault(what: str, annotation: Entry, key: str) -> Fault:
    return Fault(what, f"{key} {shown(annotation[key])}" if key in annotation else f"no {key}")


def _over(box: list[int | float], image: Entry) -> float:
    """The number of pixels by which the box exceeds its picture."""
    x, y, width, height = box
    return float(max(-x, -y, x + width - image["width"], y + height - image["height"]))


def refuse_normalized(file: pathlib.Path, boxes: list[Entry], images: Iterable[Entry]) -> None:
    """Refuses boxes in shares of the picture: such a box is less than a pixel wide.

    Args:
        boxes: annotations with a `bbox` of four numbers; the search ends at a box in pixels.
        images: the images that the file lists.

    Raises:
        DataError: all boxes are within 0 and 1, and the pictures are larger than one pixel.
    """
    largest = max(images, key=lambda image: int(image["width"]) * int(image["height"]))
    if max(largest["width"], largest["height"]) <= 2:
        return
    area = False
    for annotation in boxes:
        x, y, width, height = annotation["bbox"]
        if min(x, y, width, height) < 0 or max(x + width, y + height) > NORMALIZED:
            return
        area = area or (width > 0 and height > 0)
    if area:
        raise DataError(
            f"{file}: all {len(boxes)} boxes are between 0 and 1 (the first is "
            f"{shown(boxes[0]['bbox'])}), but the pictures have up to {largest['width']} × "
            f"{largest['height']} pixels. The boxes seem to be normalized; COCO's are x, y, width, "
            "height in pixels, x and y of the upper left corner. Convert them: multiply x and "
            "width by the width of the picture, y and height by its height (if x and y are the "
            "center, as YOLO has them, first subtract half the width and half the height)"
        )
