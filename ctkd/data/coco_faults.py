"""What may be wrong with COCO's annotations: refused by name, or left out and counted."""

import math
import pathlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from ctkd.errors import DataError

Faults = Literal["refuse", "skip"]
Entry = dict[str, Any]
ROUNDING = 1.0  # pixels that a box may reach over its picture's edge; COCO's own round so
NAMED = 3  # faults named in a message


@dataclass
class Counted:
    """What is wrong with a file, and what is left out of it."""

    file: pathlib.Path
    faults: Faults
    notes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, what: str) -> None:
        """Counts something that is left out without being a fault."""
        self.notes[what] += 1

    def fault(self, what: str, where: str) -> None:
        """Counts a fault, and keeps where it is."""
        self.note(what)
        self.examples.setdefault(what, []).append(where)

    def raise_faults(self) -> None:
        """Raises DataError where there are faults and they are to be refused."""
        if self.faults == "skip" or not self.examples:
            return
        lines = [
            f"{len(found)} {what}: {', '.join(found[:NAMED])}" + (", …" if found[NAMED:] else "")
            for what, found in self.examples.items()
        ]
        raise DataError(
            f"{self.file}: {'; '.join(lines)}. Mend the file, or have them left out and counted: "
            "--gin_param \"coco.faults = 'skip'\""
        )


def fault_of(
    annotation: Entry, images: dict[int, Entry], known: set[int], labels: dict[int, int]
) -> str | None:
    """What is wrong with an annotation, in the plural."""
    if any(isinstance(annotation.get(name), (list, dict)) for name in ("image_id", "category_id")):
        return "annotations with an id that is no number"
    if annotation.get("iscrowd", 0) not in (0, 1) or not _finite(annotation.get("area", 0)):
        return "annotations with an iscrowd that is not 0 or 1, or an area that is no number"
    if annotation.get("image_id") not in known:
        return "annotations of an image that is not listed"
    if annotation.get("category_id") not in labels:
        return "annotations of a category that is not listed"
    box = annotation.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_finite, box))):
        return "annotations without a box of four numbers"
    image = images.get(annotation["image_id"])
    if image is None:
        return None
    x, y, width, height = box
    over = max(-x, -y, x + width - image["width"], y + height - image["height"])
    return "boxes outside their picture" if over > ROUNDING else None


def _finite(value: object) -> bool:
    """Whether it is a number that a float can hold."""
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:
        return False
