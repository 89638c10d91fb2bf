"""COCO's json as exporters write it: ids from 0, numbers as texts, areas of 0, normalized boxes."""

import json

import pytest
import torch

from ctkd.data.coco import COCO
from ctkd.errors import DataError

SMALL = {"categories": 3, "short_sides": (48, 64), "long_side": 100, "test_side": 64}


def make(folder, **more):
    return COCO(str(folder), **{**SMALL, **more})


def both(coco_json, change):
    """Changes the annotations of both splits."""
    coco_json(change)
    return coco_json(change, "val2017")


def same(one, other):
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.sizes, other.sizes)


@pytest.mark.parametrize("area", [0, -1, 0.0, "0"])
def test_an_area_of_0_or_less_is_computed_as_a_missing_one_is(coco_json, area):
    whole = make(coco_json(lambda content: None)).load().train
    areas = [annotation["area"] for annotation in whole.truth["annotations"]]

    def change(content):
        for annotation in content["annotations"]:
            annotation["area"] = area

    train = make(coco_json(change)).load().train
    assert [annotation["area"] for annotation in train.truth["annotations"]] == areas
    assert min(areas) > 0


def normalize(content):
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    for annotation in content["annotations"]:
        width, height = sizes[annotation["image_id"]]
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x / width, y / height, w / width, h / height]


@pytest.mark.parametrize("faults", ["refuse", "skip"])
def test_normalized_boxes_are_refused_with_the_way_to_convert_them(coco_json, faults):
    folder = coco_json(normalize)
    with pytest.raises(DataError, match=r"all \d+ boxes are between 0 and 1") as error:
        make(folder, faults=faults).load()
    for part in ("instances_train2017.json", "80 × 60", "multiply x and width by the width"):
        assert part in str(error.value)


def test_one_box_in_pixels_is_enough_to_take_boxes_for_pixels(coco_json):
    def change(content):
        normalize(content)
        content["annotations"][-1]["bbox"] = [0, 0, 20, 10]

    assert make(coco_json(change)).load().train.boxes.tolist()[-1] == [0, 0, 20, 10]


def test_category_ids_may_begin_with_0(coco_json, coco_folder):
    before = make(coco_folder).load().train

    def change(content):
        for category in content["categories"]:
            category["id"] -= 1
        for annotation in content["annotations"]:
            annotation["category_id"] -= 1

    dataset = make(both(coco_json, change))
    train = dataset.load().train
    same(train, before)
    assert train.labels.min() == 1  # 0 is the background
    assert train.category_ids == {1: 0, 2: 3, 3: 8}
    assert train.names == dataset.class_names() == before.names
    with pytest.raises(DataError, match=r"category id 0.*label 0 is the background.*'ranks'"):
        make(coco_folder, labels="ids", categories=9).load()


def test_whole_numbers_may_be_floats_or_texts(coco_json, coco_folder):
    before = make(coco_folder).load().train

    def change(content):
        for number, image in enumerate(content["images"]):
            image["width"] = (float, str, lambda n: f"{n}.0")[number % 3](image["width"])
            image["height"] = str(image["height"])
            image["id"] = float(image["id"])
        for annotation in content["annotations"]:
            annotation["image_id"] = str(annotation["image_id"])
            annotation["category_id"] = str(annotation["category_id"])
            annotation["bbox"] = [str(value) for value in annotation["bbox"]]
            annotation["area"], annotation["iscrowd"] = str(annotation["area"]), "0"
        for category in content["categories"]:
            category["id"] = float(category["id"])

    train = make(both(coco_json, change)).load().train
    same(train, before)
    assert json.dumps(train.truth["annotations"]) == json.dumps(before.truth["annotations"])
    assert json.dumps(train.ids) == json.dumps(before.ids)  # 1, not 1.0
    assert json.dumps(train.category_ids) == json.dumps(before.category_ids)


def test_ids_that_are_texts_stay_texts(coco_json, coco_folder):
    before = make(coco_folder).load().train

    def change(content):
        for image in content["images"]:
            image["id"] = f"picture {image['id']}"
        for annotation in content["annotations"]:
            annotation["image_id"] = f"picture {annotation['image_id']}"
            annotation["category_id"] = str(annotation["category_id"])
        for category in content["categories"]:
            category["id"] = str(10 * category["id"])  # "90" is sorted behind "100", if as a text
        for annotation in content["annotations"]:
            annotation["category_id"] = 10 * int(annotation["category_id"])  # finds the text

    train = make(both(coco_json, change)).load().train
    same(train, before)
    assert train.ids == [f"picture {number}" for number in before.ids]
    assert train.category_ids == {1: "10", 2: "40", 3: "90"}
    assert {a["category_id"] for a in train.truth["annotations"]} <= {"10", "40", "90"}


def put(name, index, **change):
    return lambda content: content[name][index].update(change)


def without(name, index, key):
    return lambda content: content[name][index].pop(key)


REFUSED = [
    (put("images", 1, width=80.5), r"images\[1\] \(id 2\): width is 80.5, expected a whole number"),
    (put("images", 1, height="high"), r'images\[1\] \(id 2\): height is "high", expected a whole'),
    (put("images", 1, width=True), r"images\[1\] \(id 2\): width is true, expected a whole"),
    (put("images", 1, width=10**30), r"images\[1\] \(id 2\): width is 10+, expected .* to 1000000"),
    (put("images", 1, width=0), r"images\[1\] \(id 2\): width is 0, expected .* from 1"),
    (without("images", 1, "height"), r"images\[1\] \(id 2\) has no 'height': expected a whole"),
    (put("images", 1, file_name=None), r"images\[1\] \(id 2\): file_name is null, expected a text"),
    (put("images", 1, id=None), r"images\[1\]: id is null, expected a whole number or a text"),
    (put("images", 1, id=True), r"images\[1\]: id is true, expected a whole number or a text"),
    (put("images", 1, id=[1]), r"images\[1\]: id is \[1\], expected a whole number or a text"),
    (put("images", 1, id=2.5), r"images\[1\]: id is 2.5, expected a whole number or a text"),
    (without("images", 1, "id"), r"images\[1\] has no 'id': expected a whole number or a text"),
    (
        put("images", 1, id="2"),
        r'images\[1\]: id is "2", expected .* as the id of images\[0\] \(1\)',
    ),
    (
        put("images", 1, id=1.0),
        r"images\[0\] and images\[1\] both have the id 1: every entry needs",
    ),
    (
        put("categories", 2, id=-1),
        r"categories\[2\]: id is -1, expected a whole number of 0 or more",
    ),
    (put("categories", 2, id=False), r"categories\[2\]: id is false, expected a whole number"),
    (put("categories", 2, id=4), r"categories\[1\] and categories\[2\] both have the id 4"),
    (without("categories", 2, "name"), r"categories\[2\] \(id 9\) has no 'name': expected a text"),
    (lambda content: content["categories"].clear(), "lists no categories"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_a_value_of_another_kind_is_refused_with_file_entry_key_and_value(
    coco_json, change, message
):
    with pytest.raises(DataError, match=r"instances_train2017.json.*" + message):
        make(coco_json(change)).load()


def test_text_ids_of_categories_must_be_numbers(coco_json):
    def change(content):
        for category in content["categories"]:
            category["id"] = category["name"]

    with pytest.raises(DataError, match=r'categories\[0\]: id is "square", expected a whole'):
        make(coco_json(change)).load()


def test_a_number_of_thousands_of_digits_is_refused(coco_folder):
    file = coco_folder / "annotations" / "instances_train2017.json"
    file.write_text(file.read_text().replace('"area": ', '"area": ' + "9" * 5000, 1))
    with pytest.raises(DataError, match="instances_train2017.json cannot be read"):
        make(coco_folder).load()
