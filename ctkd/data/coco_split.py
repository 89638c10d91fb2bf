"""The training and test splits of a data set in COCO's layout."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ctkd.data.coco_faults import KEPT, joined
from ctkd.data.coco_values import Entry, Id


@dataclass(frozen=True)
class Annotated:
    """One split: n pictures, and m boxes for training.

    Attributes:
        paths, ids, sizes: of the n pictures; sizes are (width, height), [n, 2].
        boxes: (x1, y1, x2, y2) in pixels, in the order of the pictures, [m, 4]; without crowds.
        labels: [m], from 1; 0 is the background.
        starts: [n + 1]; the boxes of picture i are those from starts[i] to starts[i + 1].
        category_ids, names: COCO's id and name of every label (0: background).
        truth: the ground truth for pycocotools, with crowds.
        passed_over: kind of left-out entry -> number.
        examples: kind of faulty entry -> the location of each.
        upright: whether an EXIF orientation is applied if the size does not decide.
        remarks: other sentences for the user about the pictures.
    """

    paths: list[str]
    ids: list[Id]
    sizes: Tensor
    boxes: Tensor
    labels: Tensor
    starts: Tensor
    category_ids: dict[int, Id]
    names: dict[int, str]
    truth: dict[str, list[Entry]]
    passed_over: dict[str, int]
    examples: dict[str, list[str]] = field(default_factory=dict)
    upright: bool = False
    remarks: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def has_objects(self) -> bool:
        """Whether there is an object to find; without one, average precision is undefined."""
        return any(not annotation["iscrowd"] for annotation in self.truth["annotations"])

    def targets(self, index: int) -> dict[str, Tensor]:
        """{"boxes": [k, 4], "labels": [k]} of a picture, the format of torchvision's detectors."""
        part = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return {"boxes": self.boxes[part], "labels": self.labels[part]}

    def taking(self, chosen: list[int]) -> "Annotated":
        """The split with only these pictures and their ground truth."""
        found = [self.targets(index) for index in chosen]
        ids = [self.ids[index] for index in chosen]
        kept = set(ids)
        truth = {
            "images": [image for image in self.truth["images"] if image["id"] in kept],
            "annotations": [a for a in self.truth["annotations"] if a["image_id"] in kept],
            "categories": self.truth["categories"],
        }
        counts = torch.tensor([0, *(len(target["labels"]) for target in found)])
        return Annotated(
            paths=[self.paths[index] for index in chosen],
            ids=ids,
            sizes=self.sizes[chosen],
            boxes=torch.cat([self.boxes[:0], *(target["boxes"] for target in found)]),
            labels=torch.cat([self.labels[:0], *(target["labels"] for target in found)]),
            starts=counts.cumsum(0),
            category_ids=self.category_ids,
            names=self.names,
            truth=truth,
            passed_over=self.passed_over,
            examples=self.examples,
            upright=self.upright,
            remarks=self.remarks,
        )

    @property
    def left_out(self) -> str:
        """The numbers of left-out entries, in words, with the names of the first faulty ones."""
        parts = []
        for what, count in self.passed_over.items():
            names = self.examples.get(what)
            parts.append(f"{count} {what}" + (f" ({joined(names, KEPT)})" if names else ""))
        return ", ".join(parts)


@dataclass(frozen=True)
class DetectionSplits:
    """The training pictures and the test pictures."""

    train: Annotated
    test: Annotated
