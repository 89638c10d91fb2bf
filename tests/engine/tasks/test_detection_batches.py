"""The detection task: batches that are a function of the step, and the evaluation by AP."""

import json

import pytest
import torch
from torch import nn

from ctkd.engine.distributed.world import World
from ctkd.errors import ConfigError, DataError


def steps(batches):
    return [(batch.indices.tolist(), batch.views.tolist()) for batch in batches]


def test_a_batch_is_pictures_in_0_to_1_and_their_boxes(task):
    batch = next(task.batches(1, 0))
    assert batch.samples == len(batch.inputs) == len(batch.targets) == 2
    for picture, target in zip(batch.inputs, batch.targets, strict=True):
        assert picture.dtype == torch.float32
        assert 0 <= picture.min() <= picture.max() <= 1
        assert target["boxes"].shape[1] == 4
        assert target["labels"].min() >= 1
        assert (target["boxes"][:, 2:] <= torch.tensor(picture.shape[:0:-1])).all()


def test_an_epoch_is_a_pass_or_any_stretch_of_steps(make):
    assert make().steps_per_epoch == 4
    stretch = make(steps_per_epoch=3)
    assert stretch.steps_per_epoch == 3
    by_threes = [step for epoch in (1, 2, 3, 4) for step in steps(stretch.batches(epoch, 0))]
    by_passes = [step for epoch in (1, 2, 3) for step in steps(make().batches(epoch, 0))]
    assert by_threes == by_passes  # twelve steps either way


@pytest.mark.parametrize("workers", [0, 2])
def test_the_middle_of_an_epoch_is_reached_without_its_beginning(workers, make):
    whole = list(make(steps_per_epoch=6).batches(2, 0))
    rest = list(make(steps_per_epoch=6, workers=workers).batches(2, 4))
    assert steps(rest) == steps(whole)[4:]
    for one, other in zip(whole[4:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.inputs, other.inputs, strict=True))


@pytest.mark.parametrize("change", [{"area": 1.0}, {"iscrowd": 1}])
def test_the_fingerprint_knows_what_ap_is_scored_by(coco_json, change, make):
    def last(content):
        return content["annotations"][-1]

    def fingerprint(edit):
        return make(coco_json(edit, "val2017")).data_fingerprint()

    before = fingerprint(lambda content: None)
    assert fingerprint(lambda content: None) == before
    assert fingerprint(lambda content: last(content).update(change)) != before


def test_ranks_share_a_steps_pictures(make):
    alone = steps(make().batches(1, 0))
    ranks = [steps(make(World(rank, 2)).batches(1, 0)) for rank in range(2)]
    for whole, one, other in zip(alone, *ranks, strict=True):
        assert sorted(one[0] + other[0]) == sorted(whole[0])


class Oracle(nn.Module):
    """Detects what is in a picture: its bright rectangles, by their colors."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.shift, self.modes = shift, []

    def forward(self, pictures):
        self.modes.append((self.training, len(pictures), torch.is_grad_enabled()))
        (picture,) = pictures
        boxes, labels = [], []
        for channel in range(3):
            places = ((picture[channel] == 1) & (picture.sum(0) == 1)).nonzero()
            if len(places):
                (top, left), (bottom, right) = places.min(0).values, places.max(0).values
                boxes.append([left, top, right + 1, bottom + 1])
                labels.append(channel + 1)
        found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) + self.shift
        return [{"boxes": found, "labels": torch.tensor(labels), "scores": torch.ones(len(labels))}]


def test_evaluation_gives_cocos_numbers_in_percent_and_the_results_file(task):
    oracle = Oracle().train()
    metrics = task.evaluate(oracle)
    assert metrics["ap"] > 60  # rectangles that hide others are found cut
    assert metrics["ap50"] >= metrics["ap"]
    assert task.evaluate(Oracle(shift=6.0))["ap"] < metrics["ap"] / 2
    assert oracle.training
    assert oracle.modes == [(False, 1, False)] * 8
    found = json.loads(task.files["detections.json"])
    assert {one["category_id"] for one in found} <= {1, 4, 9}
    assert {one["image_id"] for one in found} <= set(range(501, 509))


def test_an_untrained_detector_that_finds_nothing_scores_zero(task):
    class Blind(nn.Module):
        def forward(self, pictures):
            nothing = torch.zeros(0)
            return [{"boxes": nothing.view(0, 4), "labels": nothing.long(), "scores": nothing}]

    metrics = task.evaluate(Blind())
    assert metrics["ap"] == metrics["ap50"] == metrics["ar100"] == 0
    assert json.loads(task.files["detections.json"]) == []


def test_each_categorys_ap_on_request(make):
    metrics = make(per_class=True).evaluate(Oracle())
    assert {name for name in metrics if "/" in name} == {"ap/square", "ap/tall", "ap/wide"}


def test_an_unreadable_picture_stops_the_epoch_and_the_evaluation(coco_folder, make):
    task = make(workers=1)
    for split in ("train2017", "val2017"):
        for path in (coco_folder / split).iterdir():
            path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="train2017.*is not a readable picture") as error:
        list(task.batches(1, 0))
    assert "Traceback" not in str(error.value)
    with pytest.raises(DataError, match="val2017"):
        task.evaluate(Oracle())


def test_accumulated_parts_and_too_small_batches_are_refused(command, coco_folder):
    small = ["--gin_file=gin/coco/vanilla.gin", f"--gin_param=data_dir = {str(coco_folder)!r}"]
    small += ["--gin_param=coco.categories = 3", "--gin_param=batch_size = 2", "--workdir=run"]
    result = command(*small, "--gin_param=Runtime.accumulate = 2")
    assert result.status == 2
    assert "Runtime.accumulate = 2: expected 1 for detection" in result.err
    result = command(*small, "--gin_param=compile = True")
    assert result.status == 2
    assert "inputs of one shape" in result.err


def test_batches_and_networks_that_do_not_fit_are_refused(make):
    with pytest.raises(ConfigError, match="batch_size = 9"):
        make(batch_size=9)
