"""COCO's average precision and recall of boxes, as pycocotools computes them."""

import contextlib
import io
import json
import math
from typing import Any

import numpy as np

Found = dict[str, Any]
Truth = dict[str, list[dict[str, Any]]]
# The twelve numbers, in pycocotools' order: over IoU 0.50 to 0.95 unless the name says 50 or 75; by
# area below 32², to 96² and above; recall with 1, 10 and 100 detections a picture.
_AP, _AR = ("", "50", "75", "_small", "_medium", "_large"), ("1", "10", "100")
NAMES = [*(f"ap{end}" for end in _AP), *(f"ar{end}" for end in (*_AR, *_AP[3:]))]


def average_precision(truth: Truth, found: list[Found], per_class: bool) -> dict[str, float]:
    """The twelve numbers, in percent; without detections they are 0.

    Where there is nothing to find, pycocotools gives -1 and there is no precision: "ap" is NaN
    then. The numbers of an area range without an object are left out, and so are the categories
    without an object.

    Args:
        truth: `images`, `annotations` and `categories`, as COCO's json has them.
        found: `image_id, category_id, bbox` (x, y, width, height) and `score` of each detection.
        per_class: whether every category's AP is added, as "ap/NAME".
    """
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        reference = _indexed(truth)
        # pycocotools changes its inputs, and fails on an empty list of results.
        copies = [dict(one) for one in found]
        results = reference.loadRes(copies) if found else _indexed({**truth, "annotations": []})
        scored = COCOeval(reference, results, "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    numbers = zip(NAMES, scored.stats.tolist(), strict=True)
    metrics = {name: 100 * value for name, value in numbers if value >= 0}
    metrics = {"ap": math.nan, **metrics}
    if per_class:
        # [IoU thresholds, recalls, categories, areas, detections]; -1: there is nothing to find
        precision = scored.eval["precision"][:, :, :, 0, -1]
        names = {category["id"]: category["name"] for category in truth["categories"]}
        for index, category in enumerate(scored.params.catIds):
            valid = precision[:, :, index]
            valid = valid[valid > -1]
            if valid.size:
                metrics[f"ap/{names[category]}"] = 100 * float(np.mean(valid))
    return metrics


def results_text(found: list[Found]) -> str:
    """The detections as COCO's results json, one a line; a tenth of a pixel is exact enough."""
    lines = [
        json.dumps(
            {**one, "bbox": [round(x, 2) for x in one["bbox"]], "score": round(one["score"], 5)}
        )
        for one in found
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _indexed(truth: Truth) -> Any:
    from pycocotools.coco import COCO

    made = COCO()
    made.dataset = {
        **truth,
        "annotations": [dict(annotation) for annotation in truth["annotations"]],
        "info": {},
    }
    made.createIndex()
    return made
