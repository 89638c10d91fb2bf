"""COCO's layout: numbering, what is trained on, what is refused or counted, what a view does."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from ctkd.data.coco import AS_IT_IS, COCO, resize
from ctkd.errors import ConfigError, DataError

SMALL = {"categories": 3, "short_sides": (48, 64), "long_side": 100, "test_side": 64}


def make(folder, **more):
    return COCO(str(folder), **{**SMALL, **more})


def first(content):
    return content["annotations"][0]


def test_categories_are_numbered_by_rank_from_1_and_mapped_back(coco_folder):
    dataset = make(coco_folder)
    train = dataset.load().train
    assert dataset.num_classes == 4
    assert train.category_ids == {1: 1, 2: 4, 3: 9}
    assert train.names == {0: "background", 1: "square", 2: "tall", 3: "wide"}
    assert dataset.class_names() == train.names
    content = json.loads((coco_folder / "annotations/instances_train2017.json").read_text())
    annotation = first(content)
    target = train.targets(train.ids.index(annotation["image_id"]))
    x, y, w, h = annotation["bbox"]
    assert target["boxes"][0].tolist() == [x, y, x + w, y + h]
    assert train.category_ids[int(target["labels"][0])] == annotation["category_id"]


def test_labels_may_be_cocos_ids(coco_folder):
    dataset = make(coco_folder, labels="ids", categories=9)
    assert dataset.num_classes == 10
    assert set(dataset.load().train.labels.tolist()) <= {1, 4, 9}


def test_networks_are_offered_the_classes_and_the_size_to_be_judged_at(coco_folder):
    offers = make(coco_folder).offers
    assert offers == {"num_classes": 4, "min_size": 64, "max_size": 100}


def test_a_crowd_is_not_trained_on_but_belongs_to_the_ground_truth(coco_json):
    folder = coco_json(lambda content: first(content).update(iscrowd=1))
    train, whole = make(folder).load().train, make(coco_json(lambda c: None)).load().train
    assert train.passed_over["crowds, which are not single objects"] == 1
    assert len(train.truth["annotations"]) == len(whole.truth["annotations"])
    assert [a["iscrowd"] for a in train.truth["annotations"]].count(1) == 1


def test_a_picture_without_boxes_is_left_out_unless_it_is_wanted(coco_json):
    def emptied(content):
        kept = content["images"][0]["id"]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != kept]

    folder = coco_json(emptied)
    assert len(make(folder).load().train) == 7
    with_it = make(folder, empty_pictures=True).load().train
    assert len(with_it) == 8
    assert with_it.targets(0)["boxes"].shape == (0, 4)


@pytest.mark.parametrize("box", [[5, 5, 0, 10], [5, 5, 10, 0], [5, 5, -3, 10]])
def test_a_box_without_an_area_is_counted_and_not_trained_on(coco_json, box):
    before = len(make(coco_json(lambda content: None)).load().train.labels)
    train = make(coco_json(lambda content: first(content).update(bbox=box))).load().train
    assert train.passed_over["boxes without an area"] == 1
    assert len(train.labels) == before - 1


def test_a_box_over_the_edge_by_rounding_is_cut_there(coco_json):
    train = make(coco_json(lambda c: first(c).update(bbox=[-0.5, 3, 20, 10]))).load().train
    assert train.boxes[0].tolist() == [0, 3, 19.5, 13]


FAULTS = [
    ("annotations of an image that is not listed", {"image_id": 77}),
    ("annotations of a category that is not listed", {"category_id": 2}),
    ("annotations with an id that is neither a whole number nor text", {"category_id": [2]}),
    ("annotations with an id that is neither a whole number nor text", {"image_id": True}),
    ("annotations with an id that is neither a whole number nor text", {"image_id": None}),
    ("annotations with an id that is neither a whole number nor text", {"image_id": 1.5}),
    ("annotations without a box of four numbers", {"bbox": [1, 2, 3]}),
    ("annotations without a box of four numbers", {"bbox": [1, 2, 3, 10**400]}),
    ("boxes outside their picture", {"bbox": [70, 5, 30, 10]}),
    ("annotations with an iscrowd that is not 0 or 1", {"iscrowd": None}),
    ("annotations with an area that is not a number", {"area": None}),
]


@pytest.mark.parametrize(("fault", "change"), FAULTS)
def test_a_fault_is_refused_by_name_or_left_out_and_counted(coco_json, fault, change):
    before = len(make(coco_json(lambda content: None)).load().train.labels)
    folder = coco_json(lambda content: first(content).update(change))
    with pytest.raises(DataError, match=f"instances_train2017.json: 1 {fault}: annotation 1 ") as e:
        make(folder).load()
    assert "coco.faults = 'skip'" in str(e.value)
    (key, came), *_ = change.items()
    assert f"{key} {json.dumps(came)[:50]}" in str(e.value)
    train = make(folder, faults="skip").load().train
    assert train.passed_over[fault] == 1
    assert len(train.labels) == before - 1
    assert len(train.truth["annotations"]) == before - 1


def test_a_missing_picture_is_refused_by_name_or_left_out_with_its_boxes(coco_folder):
    (coco_folder / "val2017" / "000000000502.png").unlink()
    with pytest.raises(DataError, match="1 pictures missing in .*val2017: 000000000502.png"):
        make(coco_folder).load()
    test = make(coco_folder, faults="skip").load().test
    assert 502 not in test.ids
    assert all(a["image_id"] != 502 for a in test.truth["annotations"])


def test_pictures_of_which_none_is_there_are_refused_whatever_faults_are(coco_folder):
    (coco_folder / "val2017").rename(coco_folder / "elsewhere")
    (coco_folder / "val2017").mkdir()
    with pytest.raises(DataError, match="contains none of the pictures that .*val2017.json"):
        make(coco_folder, faults="skip").load()


def test_what_is_no_set_of_annotations_is_named(coco_folder, coco_json):
    file = coco_folder / "annotations" / "instances_train2017.json"
    coco_json(lambda content: content.update(images=[]))
    with pytest.raises(DataError, match="lists no images"):
        make(coco_folder).load()
    coco_json(lambda content: content.pop("images"))
    with pytest.raises(DataError, match="no list 'images'"):
        make(coco_folder).load()
    file.write_text('{"images": [')
    with pytest.raises(DataError, match="damaged, not JSON"):
        make(coco_folder).load()
    file.unlink()
    with pytest.raises(DataError, match="does not exist"):
        make(coco_folder).load()


def test_annotations_as_windows_editors_save_them(coco_folder):
    file = coco_folder / "annotations" / "instances_train2017.json"
    text = file.read_text()
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("[", "[\r\n").encode())
    assert len(make(coco_folder).load().train.labels) > 0
    file.write_bytes(text.replace("square", "größe").encode("latin-1"))
    with pytest.raises(DataError, match=r"cannot be read: line 1: the byte 0xF6 is not UTF-8"):
        make(coco_folder).load()


def test_places_are_asked_for_in_full(tmp_path, monkeypatch):
    monkeypatch.delenv("CTKD_COCO", raising=False)
    with pytest.raises(DataError, match="no folder was given.*data_dir.*CTKD_COCO"):
        COCO().load()
    with pytest.raises(DataError, match="nowhere does not exist"):
        COCO(str(tmp_path / "nowhere")).load()


def test_another_number_of_categories_is_refused(coco_folder):
    with pytest.raises(DataError, match="coco.categories is 80: set coco.categories = 3"):
        make(coco_folder, categories=80).load()
    with pytest.raises(DataError, match="category ids up to 9"):
        make(coco_folder, categories=8, labels="ids").load()


def test_splits_of_different_categories_are_refused(coco_json):
    folder = coco_json(lambda content: content["categories"][0].update(name="other"), "val2017")
    differing = 'label 1 is id 1, name "square" in train2017, but id 1, name "other" in val2017'
    with pytest.raises(DataError, match=f"categories differ: {differing}"):
        make(folder).load()


@pytest.mark.parametrize("wrong", [{"short_sides": ()}, {"long_side": 10}, {"test_side": 3}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"coco.{next(iter(wrong))}"):
        COCO(**{**SMALL, **wrong})


def test_resizing_keeps_boxes_on_what_they_show():
    picture = torch.zeros(3, 60, 80, dtype=torch.uint8)
    picture[:, 12:24, 20:60] = 200
    resized, boxes = resize(picture, torch.tensor([[20.0, 12.0, 60.0, 24.0]]), 120, 1000)
    assert resized.shape == (3, 120, 160)
    bright = (resized[0] > 100).nonzero()
    assert bright.min(0).values.tolist() == boxes[0, [1, 0]].round().long().tolist()
    assert (bright.max(0).values + 1).tolist() == boxes[0, [3, 2]].round().long().tolist()
    assert resize(picture, boxes, 120, 100)[0].shape == (3, 75, 100)  # the long side's limit


def test_a_view_decides_the_size_and_the_mirror_and_nothing_else_does(coco_folder):
    dataset = make(coco_folder)
    read = dataset.reader(dataset.load().train)
    views = [read(1, view) for view in range(40)]
    assert {min(sample.picture.shape[-2:]) for sample in views} == {48, 64}
    torch.manual_seed(9)
    again = pickle.loads(pickle.dumps(read))(1, 7)  # as in a worker
    assert torch.equal(again.picture, views[7].picture)
    assert torch.equal(again.targets["boxes"], views[7].targets["boxes"])
    same_size = [v for v in views if v.picture.shape == views[0].picture.shape]
    boxes = {tuple(v.targets["boxes"].flatten().tolist()) for v in same_size}
    assert len(boxes) == 2  # as it is, and mirrored
    plain = make(coco_folder, flip=False)
    read = plain.reader(plain.load().train)
    assert len({tuple(read(1, v).targets["boxes"][0].tolist()) for v in range(40)}) == 2  # sizes


def test_a_mirrored_box_still_frames_its_object(coco_folder):
    dataset = make(coco_folder, short_sides=(60,))
    train = dataset.load().train
    read = dataset.reader(train)
    for index in range(len(train)):
        for view in range(6):
            sample = read(index, view)
            for box, label in zip(*sample.targets.values(), strict=True):
                x1, y1, x2, y2 = box.round().long().tolist()
                inside = sample.picture[int(label) - 1, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
                assert inside.float().mean() > 150  # partly hidden by another rectangle at most


def test_the_view_to_be_judged_by_is_the_file(coco_folder):
    dataset = make(coco_folder)
    test = dataset.load().test
    sample = dataset.reader(test)(0, AS_IT_IS)
    pixels = np.array(Image.open(test.paths[0])).transpose(2, 0, 1)
    assert np.array_equal(sample.picture.numpy(), pixels)


def test_an_unreadable_picture_comes_back_as_an_error_that_names_it(coco_folder):
    dataset = make(coco_folder)
    train = dataset.load().train
    read = dataset.reader(train)
    with open(train.paths[0], "r+b") as file:
        file.truncate(60)
    error = read(0, 1)
    assert isinstance(error, DataError)
    assert train.paths[0] in str(error)
    Image.new("RGB", (5, 5)).save(train.paths[1])
    assert "is 5 × 5 pixels: the annotations say" in str(read(1, 1))


def test_a_gray_picture_is_read_in_color(coco_folder):
    dataset = make(coco_folder)
    train = dataset.load().train
    size = tuple(train.sizes[0].tolist())
    Image.new("L", size, 77).save(train.paths[0])
    assert dataset.reader(train)(0, AS_IT_IS).picture.unique().tolist() == [77]


def test_the_first_pictures_only_with_their_own_ground_truth(coco_folder):
    splits = make(coco_folder, train_pictures=3, test_pictures=2).load()
    assert (len(splits.train), len(splits.test)) == (3, 2)
    assert {a["image_id"] for a in splits.test.truth["annotations"]} == set(splits.test.ids)
    whole = make(coco_folder).load().train
    for index in range(3):
        assert torch.equal(splits.train.targets(index)["boxes"], whole.targets(index)["boxes"])


def test_the_sample_of_real_pictures_is_whole(coco128):
    splits = COCO(str(coco128)).load()
    assert (len(splits.train), len(splits.test)) == (126, 128)  # two have crowds only, or nothing
    assert splits.train.passed_over["crowds, which are not single objects"] == 10
    assert len(splits.train.truth["annotations"]) == sum(1 for _ in splits.train.labels) + 10 - sum(
        a["iscrowd"] and a["image_id"] not in splits.train.ids
        for a in splits.train.truth["annotations"]
    )
    assert splits.train.names[80] == "toothbrush"
    assert splits.train.category_ids[80] == 90
