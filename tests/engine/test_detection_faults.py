"""Whole runs of detection on faulty data: nothing to find, unreadable pictures, odd ids."""

import json
import math
import re

import pytest
import torch

from ctkd.data.coco import COCO
from ctkd.engine.config.settings import Teacher
from ctkd.engine.distributed.world import World
from ctkd.engine.output.console import as_text
from ctkd.engine.tasks.detection import DetectionTask, Loading
from ctkd.engine.teacher.frozen import judge
from ctkd.errors import DataError

TINY = ("pyramid_channels = 16", "rois_per_image = 16", "anchors_per_image = 16")
SIZES = {"categories": 3, "short_sides": (48, 64), "long_side": 96, "test_side": 64}


@pytest.fixture
def train(command, coco_folder, tmp_path, folder):
    """Trains for one epoch of two steps, in this process."""

    def call(*bindings, status=0, workdir="run"):
        given = [
            f"data_dir = {str(coco_folder)!r}",
            *(f"coco.{name} = {value!r}" for name, value in SIZES.items()),
            *(f"fasterrcnn_resnet18_fpn.{binding}" for binding in TINY),
            "fasterrcnn_resnet18_fpn.anchor_sizes = (8, 16, 24, 32, 48)",
            "batch_size = 2",
            "epochs = 1",
            "steps_per_epoch = 2",
            "workers = 0",
            *bindings,
        ]
        result = command(
            "--gin_file=gin/coco/vanilla.gin",
            *(f"--gin_param={binding}" for binding in given),
            f"--workdir={workdir}",
        )
        assert result.status == status, result.err
        return folder(tmp_path / workdir, result)

    return call


def task_of(folder, **more):
    dataset = COCO(str(folder), **SIZES, **more)
    splits = dataset.checked(dataset.load())
    return DetectionTask(dataset, splits, Loading(2, 0), torch.device("cpu"), World())


def strict(text):
    """JSON as the standard has it, without NaN."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_ap_is_undefined_where_there_is_nothing_to_find(train, coco_json, command):
    coco_json(lambda content: content["annotations"].clear(), "val2017")
    run = train()
    out = run.result.out
    assert "the 8 pictures hold no object to find" in out
    assert re.search(r"AP +–", out)
    assert "0.00 %" not in out
    (line,) = (run.path / "metrics.jsonl").read_text().splitlines()
    assert strict(line)["ap"] is None
    summary = strict((run.path / "summary.json").read_text())
    assert [summary[key] for key in ("last_ap", "best_ap", "best_epoch")] == [None] * 3
    assert not (run.path / "student_best.pt").exists()
    assert (run.path / "student_last.pt").exists()
    assert (run.path / "curves.png").exists()
    again = command("--mode=evaluate", f"--workdir={run.path}")
    assert "\nap –\n" in again.out
    assert "no object to find" in again.out


def test_a_teachers_floor_cannot_be_checked_where_there_is_nothing_to_find(coco_json):
    task = task_of(coco_json(lambda content: content["annotations"].clear(), "val2017"))

    class Blind(torch.nn.Module):
        def forward(self, pictures):
            nothing = torch.zeros(0)
            return [{"boxes": nothing.view(0, 4), "labels": nothing.long(), "scores": nothing}]

    teacher = type("Frozen", (), {"network": Blind(), "metrics": None})()
    with pytest.raises(
        DataError, match=r"ap is undefined, .*Teacher.min_accuracy = 5.0 cannot be checked"
    ):
        judge(teacher, Teacher(network=None, min_accuracy=5.0), task, "")
    measured = judge(teacher, Teacher(network=None, min_accuracy=None), task, "")
    assert math.isnan(measured["teacher_ap"])
    assert as_text("teacher_ap", measured["teacher_ap"]) == "–"


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def test_a_truncated_picture_ends_a_run_before_it_begins_or_is_left_out(train, coco_folder):
    for part, number in (("train2017", 3), ("val2017", 503)):
        cut(coco_folder / part / f"{number:012}.png")
    run = train(status=2)
    assert "1 pictures that cannot be read: 000000000003.png (" in run.result.err
    assert "Traceback" not in run.result.err
    assert not (run.path / "metrics.jsonl").exists()
    run = train("coco.faults = 'skip'", workdir="skipped")
    for split, number in (("training", 3), ("test", 503)):
        line = f"{split}: left out 1 pictures that cannot be read ({number:012}.png ("
        assert line in run.result.out
    assert run.metrics[-1]["bad_images"] == 0
    found = {one["image_id"] for one in json.loads((run.path / "detections.json").read_text())}
    assert found
    assert 503 not in found


def test_pictures_that_break_during_a_run_are_counted(coco_folder):
    task = task_of(coco_folder, faults="skip")
    cut(coco_folder / "train2017" / "000000000003.png")
    batches = list(task.batches(1, 0))
    assert len(batches) == 4
    assert all(len(batch.inputs) == 2 for batch in batches)
    (problem,) = task.bad_samples()
    assert "000000000003.png is not a readable picture" in problem


class Oracle(torch.nn.Module):
    """Detects bright rectangles; their color is their label."""

    def forward(self, pictures):
        (picture,) = pictures
        boxes, labels = [], []
        for channel in range(3):
            bright = ((picture[channel] == 1) & (picture.sum(0) == 1)).nonzero()
            if len(bright):
                (top, left), (bottom, right) = bright.min(0).values, bright.max(0).values
                boxes.append([left, top, right + 1, bottom + 1])
                labels.append(channel + 1)
        found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        return [{"boxes": found, "labels": torch.tensor(labels), "scores": torch.ones(len(labels))}]


def from_0(content):
    for category in content["categories"]:
        category["id"] -= 1
    for annotation in content["annotations"]:
        annotation["category_id"] -= 1


def as_texts(content):
    for image in content["images"]:
        image["id"] = f"picture {image['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"picture {annotation['image_id']}"


@pytest.mark.parametrize(
    ("change", "key", "ids"),
    [
        (from_0, "category_id", {0, 3, 8}),
        (as_texts, "image_id", {f"picture {n}" for n in range(501, 509)}),
    ],
)
def test_detections_have_the_ids_of_the_annotations_and_the_same_ap(
    coco_json, coco_folder, change, key, ids
):
    before = task_of(coco_folder).evaluate(Oracle())
    for split in ("train2017", "val2017"):
        coco_json(change, split)
    task = task_of(coco_folder)
    assert task.evaluate(Oracle()) == before
    assert before["ap"] > 60
    assert {one[key] for one in json.loads(task.files["detections.json"])} == ids
