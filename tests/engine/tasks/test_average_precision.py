"""Average precision: pycocotools' own numbers, and the cases that it stumbles over."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO as Reference  # noqa: N811
from pycocotools.cocoeval import COCOeval

from ctkd.engine.tasks.average_precision import NAMES, average_precision, results_text

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "unseen"}]


def annotation(number, image, category, box, crowd=0):
    area = box[2] * box[3]
    keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    return dict(zip(keys, (number, image, category, box, area, crowd), strict=True))


@pytest.fixture
def truth():
    random = np.random.default_rng(0)
    boxes = random.uniform(5, 120, (40, 4)).round(1).tolist()
    annotations = [annotation(n + 1, n % 10 + 1, (1, 7)[n % 2], box) for n, box in enumerate(boxes)]
    categories = [dict(category) for category in CATEGORIES]
    images = [{"id": n, "width": 300, "height": 300, "file_name": f"{n}.jpg"} for n in range(1, 11)]
    return {"images": images, "annotations": annotations, "categories": categories}


def detections(truth, noise=0.0, seed=1):
    random = np.random.default_rng(seed)
    return [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": (np.array(a["bbox"]) + random.normal(0, noise or 1e-12, 4)).tolist(),
            "score": float(random.uniform(0.1, 1)),
        }
        for a in truth["annotations"]
        if not a["iscrowd"]
    ]


def alone(truth, found, tmp_path):
    """What pycocotools says of the same in files."""
    (tmp_path / "truth.json").write_text(json.dumps({**truth, "info": {}}))
    (tmp_path / "found.json").write_text(results_text(found))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = Reference(str(tmp_path / "truth.json"))
        judged = COCOeval(reference, reference.loadRes(str(tmp_path / "found.json")), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return judged.stats


def test_the_ground_truth_as_detections_is_perfect(truth):
    metrics = average_precision(truth, detections(truth), per_class=True)
    assert metrics["ap"] == pytest.approx(100)
    assert metrics["ap50"] == pytest.approx(100)
    assert metrics["ar100"] == pytest.approx(100)
    assert metrics["ap/cat"] == pytest.approx(100)
    assert "ap/unseen" not in metrics


def test_a_crowd_is_neither_to_be_found_nor_a_mistake(truth):
    truth["annotations"].append(annotation(41, 1, 1, [0, 0, 299, 299], crowd=1))
    found = detections(truth)
    inside = {"image_id": 1, "category_id": 1, "bbox": [200, 200, 50, 50], "score": 1.0}
    assert average_precision(truth, found, False)["ap"] == pytest.approx(100)
    assert average_precision(truth, [*found, inside], False)["ap"] == pytest.approx(100)
    truth["annotations"].pop()
    assert average_precision(truth, [*found, inside], False)["ap"] < 99


@pytest.mark.parametrize("noise", [2.0, 8.0])
def test_perturbed_boxes_score_what_pycocotools_alone_says(truth, tmp_path, noise):
    found = detections(truth, noise)
    metrics = average_precision(truth, found, False)
    stats = alone(truth, found, tmp_path)
    for name, value in zip(NAMES, stats, strict=True):
        if value >= 0:
            assert metrics[name] == pytest.approx(100 * value, abs=0.05)  # rounded in the file
    assert 1 < metrics["ap"] < 99
    order = "ap ap50 ap75 ap_small ap_medium ap_large ar1 ar10 ar100 ar_small ar_medium ar_large"
    assert order.split() == NAMES


def test_no_detection_at_all_gives_zeros(truth, capsys):
    metrics = average_precision(truth, [], per_class=True)
    assert set(metrics.values()) == {0.0}
    assert {"ap", "ap50", "ar100", "ap/cat"} <= metrics.keys()
    assert capsys.readouterr().out == ""


def test_an_area_range_with_nothing_in_it_has_no_number(truth):
    truth["annotations"] = [annotation(1, 1, 1, [10, 10, 20, 20])]
    metrics = average_precision(truth, detections(truth), False)
    assert metrics["ap_small"] == pytest.approx(100)
    assert "ap_large" not in metrics


@pytest.mark.parametrize("crowds", [0, 1])
def test_without_an_object_to_find_ap_is_undefined(truth, crowds):
    found = detections(truth)
    truth["annotations"] = [annotation(1, 1, 1, [10, 10, 20, 20], crowd=1)][:crowds]
    for detected in (found, []):
        metrics = average_precision(truth, detected, True)
        assert metrics.keys() == {"ap"}  # pycocotools has -1 for all twelve numbers
        assert np.isnan(metrics["ap"])


def test_ids_may_begin_with_0_and_may_be_texts(truth):
    found = detections(truth, 3.0)
    before = average_precision(truth, found, True)
    for entry in [*truth["annotations"], *found]:
        entry["category_id"] = {1: 0, 7: 1, 9: 2}[entry["category_id"]]
        entry["image_id"] = f"picture {entry['image_id']:02}"
    for index, category in enumerate(truth["categories"]):
        category["id"] = index
    for image in truth["images"]:
        image["id"] = f"picture {image['id']:02}"
    assert average_precision(truth, found, True) == before


def test_judging_leaves_its_arguments_alone_and_can_be_repeated(truth):
    found = detections(truth, 3.0)
    before = json.dumps([truth, found])
    one = average_precision(truth, found, False)
    assert json.dumps([truth, found]) == before
    assert average_precision(truth, found, False) == one
