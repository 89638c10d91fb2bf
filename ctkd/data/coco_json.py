"""COCO's annotations (Lin et al. 2014, arXiv 1405.0312): read, checked, and numbered for training.

An `instances_*.json` holds `images` (id, file_name, width, height), `annotations` (image_id,
category_id, bbox as x, y, width, height in pixels, iscrowd, area) and `categories` (id, name).
"""

import json
import os
import pathlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ctkd.data.coco_faults import Counted, Entry, Faults, fault_of
from ctkd.errors import DataError


@dataclass(frozen=True)
class Annotated:
    """One split: pictures, and the boxes to train on.

    Attributes:
        paths: of the n pictures; ids, sizes: COCO's image ids, and (width, height) [n, 2].
        boxes: (x1, y1, x2, y2) in pixels, all pictures' in turn, [m, 4]; no crowds.
        labels: [m], from 1; 0 is the background.
        starts: [n + 1]; the boxes of picture i are those from starts[i] to starts[i + 1].
        category_ids: COCO's id of every label; names: of every label (0: background).
        truth: what pycocotools takes for ground truth, crowds included.
        passed_over: how many of what were left out.
    """

    paths: list[str]
    ids: list[int]
    sizes: Tensor
    boxes: Tensor
    labels: Tensor
    starts: Tensor
    category_ids: dict[int, int]
    names: dict[int, str]
    truth: dict[str, list[Entry]]
    passed_over: dict[str, int]

    def __len__(self) -> int:
        return len(self.paths)

    def targets(self, index: int) -> dict[str, Tensor]:
        """{"boxes": [k, 4], "labels": [k]} of a picture, as torchvision's detectors take them."""
        part = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return {"boxes": self.boxes[part], "labels": self.labels[part]}

    def taking(self, chosen: list[int]) -> "Annotated":
        """The split with these pictures only, its ground truth too."""
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
        )


def read_annotations(
    file: pathlib.Path, folder: pathlib.Path, categories: int, by_id: bool, faults: Faults
) -> Annotated:
    """A split from its json and its folder of pictures.

    Args:
        categories: how many there must be; with `by_id` the largest id that there may be.
        by_id: whether a label is COCO's category id (1 to 90), as torchvision's own detectors
            number them, instead of the rank of that id (1 to 80).
        faults: whether an annotation that names no image or category, has no box, or one outside
            its picture, and a picture without its file, are refused or left out and counted.

    Raises:
        DataError: the json is missing, damaged or empty; or, where faults are refused, one of them.
    """
    content = _read(file)
    counted = Counted(file, faults)
    labels = _labels(file, content["categories"], categories, by_id)
    images = _images(file, folder, content["images"], counted)
    boxes: dict[int, list[tuple[list[float], int]]] = {number: [] for number in images}
    truth: list[Entry] = []
    known = {image["id"] for image in content["images"]}
    for annotation in content["annotations"]:
        fault = fault_of(annotation, images, known, labels)
        if fault is not None:
            counted.fault(fault, f"annotation {annotation.get('id', annotation)}")
            continue
        if annotation["image_id"] not in images:  # its picture was left out, and counted
            continue
        x, y, width, height = map(float, annotation["bbox"])
        truth.append(_for_scoring(annotation, len(truth) + 1, width * height))
        box = _inside(x, y, width, height, images[annotation["image_id"]])
        if annotation.get("iscrowd", 0):
            counted.note("crowds, which are no single objects")
        elif box is None:
            counted.note("boxes without an area")
        else:
            boxes[annotation["image_id"]].append((box, labels[annotation["category_id"]]))
    counted.raise_faults()
    if not images:
        raise DataError(f"{folder} holds none of the pictures that {file} lists")
    return _assemble(folder, content, images, boxes, labels, truth, counted)


def read_names(file: pathlib.Path, categories: int, by_id: bool) -> dict[int, str]:
    """The names of all labels, 0 being the background; as `read_annotations` numbers them."""
    listed = _read(file)["categories"]
    labels = _labels(file, listed, categories, by_id)
    return _names(listed, labels)


def _names(listed: list[Entry], labels: dict[int, int]) -> dict[int, str]:
    names = {category["id"]: str(category["name"]) for category in listed}
    return {0: "background"} | {label: names[number] for number, label in labels.items()}


def _assemble(
    folder: pathlib.Path,
    content: dict[str, list[Entry]],
    images: dict[int, Entry],
    boxes: dict[int, list[tuple[list[float], int]]],
    labels: dict[int, int],
    truth: list[Entry],
    counted: Counted,
) -> Annotated:
    flat = [pair for pairs in boxes.values() for pair in pairs]
    shapes = [(image["width"], image["height"]) for image in images.values()]
    counts = torch.tensor([0, *(len(pairs) for pairs in boxes.values())])
    return Annotated(
        paths=[str(folder / image["file_name"]) for image in images.values()],
        ids=list(images),
        sizes=torch.tensor(shapes).reshape(-1, 2),
        boxes=torch.tensor([box for box, _ in flat], dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([label for _, label in flat], dtype=torch.int64),
        starts=counts.cumsum(0),
        category_ids={label: number for number, label in labels.items()},
        names=_names(content["categories"], labels),
        truth={
            "images": list(images.values()),
            "annotations": truth,
            "categories": content["categories"],
        },
        passed_over=dict(counted.notes),
    )


def _read(file: pathlib.Path) -> dict[str, list[Entry]]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{file}, line {error.lineno}: damaged, not JSON ({error.msg})") from error
    for name in ("images", "annotations", "categories"):
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{file}: expected COCO's lists of objects, found no list {name!r}")
    if not content["images"]:
        raise DataError(f"{file} lists no images")
    return {name: content[name] for name in ("images", "annotations", "categories")}


def _labels(
    file: pathlib.Path, categories: list[Entry], expected: int, by_id: bool
) -> dict[int, int]:
    """COCO's category id -> label from 1."""
    ids = [category.get("id") for category in categories]
    fine = all(isinstance(n, int) and n > 0 for n in ids) and len(set(ids)) == len(ids) > 0
    if not fine or not all("name" in category for category in categories):
        raise DataError(f"{file}: expected categories with a name and an id of their own above 0")
    numbers = sorted(number for number in ids if isinstance(number, int))
    if by_id:
        if numbers[-1] > expected:
            raise DataError(
                f"{file} has category ids up to {numbers[-1]}: set coco.categories to that "
                f"(here {expected})"
            )
        return {number: number for number in numbers}
    if len(numbers) != expected:
        raise DataError(
            f"{file} has {len(numbers)} categories: set coco.categories to that (here {expected})"
        )
    return {number: rank for rank, number in enumerate(numbers, 1)}


def _images(
    file: pathlib.Path, folder: pathlib.Path, listed: list[Entry], counted: Counted
) -> dict[int, Entry]:
    """The images by id, those whose file is there."""
    try:
        present = {entry.name for entry in os.scandir(folder)}
    except OSError as error:
        raise DataError(
            f"the pictures' folder {folder} cannot be read: {error.strerror}"
        ) from error
    found: dict[int, Entry] = {}
    for image in listed:
        wanted = ("id", "file_name", "width", "height")
        sizes = [image.get("width"), image.get("height")]
        if any(key not in image for key in wanted) or not all(
            isinstance(size, int) and size > 0 for size in sizes
        ):
            raise DataError(f"{file}: expected images with {', '.join(wanted)}, found {image}")
        if image["id"] in found:
            raise DataError(f"{file} lists the image {image['id']} twice")
        name = str(image["file_name"])
        if name in present or ("/" in name and (folder / name).is_file()):
            found[image["id"]] = {key: image[key] for key in wanted}
        else:
            counted.fault(f"pictures missing in {folder}", name)
    return found


def _inside(x: float, y: float, width: float, height: float, image: Entry) -> list[float] | None:
    """(x1, y1, x2, y2) within the picture; None if nothing is left of it."""
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, image["width"]), min(y + height, image["height"])
    # An edge thinner than this is no object, and its logarithm would be a regression target.
    return [left, top, right, bottom] if min(right - left, bottom - top) > 0.1 else None


def _for_scoring(annotation: Entry, number: int, area: float) -> Entry:
    """What pycocotools asks of an annotation; ids from 1, since it takes 0 for "not matched"."""
    return {
        "id": number,
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "bbox": annotation["bbox"],
        "area": annotation.get("area", area),
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }
