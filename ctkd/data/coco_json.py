"""Reads and checks COCO's annotations (Lin et al. 2014, arXiv 1405.0312), and numbers the labels.

An `instances_*.json` contains `images` (id, file_name, width, height), `annotations` (image_id,
category_id, bbox as x, y, width, height in pixels, iscrowd, area) and `categories` (id, name).
Numbers may be written as 120, 120.0 or "120". Ids are all whole numbers, or all texts.
"""

import json
import os
import pathlib
from collections.abc import Iterable

import torch

from ctkd.data.coco_faults import (
    Counted,
    Fault,
    Faults,
    Listed,
    Parsed,
    parse,
    refuse_normalized,
)
from ctkd.data.coco_split import Annotated
from ctkd.data.coco_values import Entry, Id, read_ids, shown, whole, wrong
from ctkd.errors import DataError
from ctkd.files import not_utf8

LARGEST_SIDE = 10**6  # pixels


def read_annotations(
    file: pathlib.Path, folder: pathlib.Path, categories: int, by_id: bool, faults: Faults
) -> Annotated:
    """A split from its json and its folder of pictures.

    Args:
        categories: the expected number of categories; with `by_id` the largest allowed id.
        by_id: whether a label is COCO's category id (1 to 90), as in torchvision's detectors,
            instead of the rank of that id (1 to 80).
        faults: "refuse", or "skip" to leave out and count: an annotation without a listed image
            or category, without a box or with one outside its picture; a picture without a file.

    Raises:
        DataError: the json is missing, damaged or empty; an image or a category in it lacks a
            value; all boxes are normalized; or there is a fault and faults are refused.
    """
    content = _read(file)
    counted = Counted(file, faults)
    labels = _labels(file, content["categories"], categories, by_id)
    ids, images = _images(file, folder, content["images"], counted)
    listed = Listed(images, set(ids), labels, _texts(ids), _texts(labels))
    boxes: dict[Id, list[tuple[list[float], int]]] = {number: [] for number in images}
    truth: list[Entry] = []
    for index, annotation in enumerate(content["annotations"]):
        parsed = parse(annotation, listed)
        if isinstance(parsed, Fault):
            counted.fault(parsed.what, f"{_named(annotation, index)} ({parsed.came})")
            continue
        if parsed.image not in images:  # its picture was left out and counted
            continue
        truth.append(_for_scoring(parsed, len(truth) + 1))
        box = _inside(parsed.box, images[parsed.image])
        if parsed.crowd:
            counted.note("crowds, which are not single objects")
        elif box is None:
            counted.note("boxes without an area")
        else:
            boxes[parsed.image].append((box, labels[parsed.category]))
    if images:
        refuse_normalized(file, truth, images.values())
    counted.raise_faults()
    if not images:
        raise DataError(f"{folder} contains none of the pictures that {file} lists")
    return _assemble(folder, content, images, boxes, labels, truth, counted)


def read_names(file: pathlib.Path, categories: int, by_id: bool) -> dict[int, str]:
    """The names of all labels, in the numbering of `read_annotations`; 0 is the background."""
    listed = _read(file)["categories"]
    return _names(listed, _labels(file, listed, categories, by_id))


def _names(listed: list[Entry], labels: dict[Id, int]) -> dict[int, str]:
    names = {labels[category["id"]]: str(category["name"]) for category in listed}  # 7.0 finds 7
    return {0: "background"} | {label: names[label] for label in labels.values()}


def _texts(ids: Iterable[Id]) -> bool:
    return any(isinstance(number, str) for number in ids)


def _named(annotation: Entry, index: int) -> str:
    """The name of an annotation in a message."""
    if "id" in annotation:
        return f"annotation {shown(annotation['id'])}"
    return f"annotations[{index}]"


def _assemble(
    folder: pathlib.Path,
    content: dict[str, list[Entry]],
    images: dict[Id, Entry],
    boxes: dict[Id, list[tuple[list[float], int]]],
    labels: dict[Id, int],
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
        examples=counted.examples,
    )


def _read(file: pathlib.Path) -> dict[str, list[Entry]]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} cannot be read: {not_utf8(error)}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{file}, line {error.lineno}: damaged, not JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:  # such as a number with thousands of digits
        raise DataError(f"{file} cannot be read: {error}") from error
    for name in ("images", "annotations", "categories"):
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{file}: expected COCO's lists of objects, found no list {name!r}")
    if not content["images"]:
        raise DataError(f"{file} lists no images")
    return {name: content[name] for name in ("images", "annotations", "categories")}


def _labels(
    file: pathlib.Path, categories: list[Entry], expected: int, by_id: bool
) -> dict[Id, int]:
    """COCO's category id -> label from 1. An id of 0 is a category, not the background."""
    if not categories:
        raise DataError(f"{file} lists no categories")
    numbers: dict[Id, int] = {}
    for index, number in enumerate(read_ids(file, "categories", categories)):
        category, value = categories[index], whole(number)
        if value is None or value < 0 or value in numbers.values():
            wanted = "a whole number of 0 or more, which no other category has"
            raise wrong(file, "categories", index, category, "id", wanted)
        if not isinstance(category.get("name"), (str, int, float)):
            raise wrong(file, "categories", index, category, "name", "a text")
        numbers[number] = value
    ranked = sorted(numbers.items(), key=lambda item: item[1])
    if not by_id:
        if len(ranked) != expected:
            raise DataError(
                f"{file} has {len(ranked)} categories, but coco.categories is {expected}: set "
                f"coco.categories = {len(ranked)}"
            )
        return {number: rank for rank, (number, _) in enumerate(ranked, 1)}
    if ranked[0][1] == 0:
        raise DataError(
            f"{file} has the category id 0, but coco.labels = 'ids' takes ids for labels, and "
            "label 0 is the background: set coco.labels = 'ranks'"
        )
    if ranked[-1][1] > expected:
        raise DataError(
            f"{file} has category ids up to {ranked[-1][1]}, but coco.categories is {expected}: "
            f"set coco.categories = {ranked[-1][1]}"
        )
    return dict(ranked)


def _images(
    file: pathlib.Path, folder: pathlib.Path, entries: list[Entry], counted: Counted
) -> tuple[list[Id], dict[Id, Entry]]:
    """The ids of all images, and the images whose file exists, by id."""
    try:
        present = {entry.name for entry in os.scandir(folder)}
    except OSError as error:
        raise DataError(
            f"the pictures' folder {folder} cannot be read: {error.strerror}"
        ) from error
    ids = read_ids(file, "images", entries)
    found: dict[Id, Entry] = {}
    for index, (number, image) in enumerate(zip(ids, entries, strict=True)):
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            raise wrong(file, "images", index, image, "file_name", "a text")
        sizes = {key: whole(image.get(key)) for key in ("width", "height")}
        for key, size in sizes.items():
            if size is None or not 1 <= size <= LARGEST_SIDE:
                wanted = f"a whole number of pixels from 1 to {LARGEST_SIDE}"
                raise wrong(file, "images", index, image, key, wanted)
        if name in present or ("/" in name and (folder / name).is_file()):
            found[number] = {"id": number, "file_name": name, **sizes}
        else:
            counted.fault(f"pictures missing in {folder}", name)
    return ids, found


def _inside(box: list[int | float], image: Entry) -> list[float] | None:
    """(x1, y1, x2, y2), cut to the picture; None if the box is outside it."""
    x, y, width, height = map(float, box)
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, image["width"]), min(y + height, image["height"])
    # A thinner box is not an object, and the logarithm of its width would be a regression target.
    return [left, top, right, bottom] if min(right - left, bottom - top) > 0.1 else None


def _for_scoring(parsed: Parsed, number: int) -> Entry:
    """An annotation for pycocotools. Ids start at 1: pycocotools takes 0 for "not matched"."""
    _, _, width, height = map(float, parsed.box)
    return {
        "id": number,
        "image_id": parsed.image,
        "category_id": parsed.category,
        "bbox": parsed.box,
        "area": width * height if parsed.area is None else parsed.area,
        "iscrowd": int(parsed.crowd),
    }
