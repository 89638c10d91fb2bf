"""The detection task: rows of proposals, batches that are a function of the step, AP."""

import copy
import dataclasses
import json

import pytest
import torch
from torch import nn

from ctkd.adversary.schedules import CosineLambda
from ctkd.data.coco import COCO
from ctkd.distiller import Distiller
from ctkd.engine.config.settings import Instrument
from ctkd.engine.diagnostics.landscape import Probe
from ctkd.engine.distributed.reduce import merge
from ctkd.engine.distributed.world import World
from ctkd.engine.metrics import Meter
from ctkd.engine.tasks.detection import DetectionTask, FrozenDetector, Loading
from ctkd.errors import ConfigError, DataError
from ctkd.losses.objectives import DKD, KD
from ctkd.losses.transforms import LogitStandardization
from ctkd.models.faster_rcnn import Detector
from ctkd.registry import MODELS
from ctkd.temperature import (
    AnnealedTemperature,
    ConstantTemperature,
    GlobalTemperature,
    InstanceTemperature,
)

CPU = torch.device("cpu")
SIZES = {"categories": 3, "short_sides": (48, 64), "long_side": 96, "test_side": 64}


def make(folder, world=World(), **loading):
    dataset = COCO(str(folder), **SIZES)
    wanted = Loading(**{"batch_size": 2, "seed": 0, **loading})
    return DetectionTask(dataset, dataset.load(), wanted, CPU, world)


def network(seed=0, **more):
    torch.manual_seed(seed)
    tiny = {"pyramid_channels": 16, "rois_per_image": 16, "anchors_per_image": 16}
    tiny |= {"anchor_sizes": (8, 16, 24, 32, 48), "min_size": 64, "max_size": 96}
    return MODELS.get("fasterrcnn_resnet18_fpn")(num_classes=4, **{**tiny, **more})


def frozen(model):
    return FrozenDetector(model, CPU, "float32", "fingerprint")


@pytest.fixture
def task(coco_folder):
    return make(coco_folder)


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


def test_an_epoch_is_a_pass_or_any_stretch_of_steps(coco_folder):
    assert make(coco_folder).steps_per_epoch == 4
    stretch = make(coco_folder, steps_per_epoch=3)
    assert stretch.steps_per_epoch == 3
    by_threes = [step for epoch in (1, 2, 3, 4) for step in steps(stretch.batches(epoch, 0))]
    by_passes = [step for epoch in (1, 2, 3) for step in steps(make(coco_folder).batches(epoch, 0))]
    assert by_threes == by_passes  # twelve steps either way


@pytest.mark.parametrize("workers", [0, 2])
def test_the_middle_of_an_epoch_is_reached_without_its_beginning(coco_folder, workers):
    whole = list(make(coco_folder, steps_per_epoch=6).batches(2, 0))
    rest = list(make(coco_folder, steps_per_epoch=6, workers=workers).batches(2, 4))
    assert steps(rest) == steps(whole)[4:]
    for one, other in zip(whole[4:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.inputs, other.inputs, strict=True))


@pytest.mark.parametrize("change", [{"area": 1.0}, {"iscrowd": 1}])
def test_the_fingerprint_knows_what_ap_is_scored_by(coco_json, change):
    def last(content):
        return content["annotations"][-1]

    def fingerprint(edit):
        return make(coco_json(edit, "val2017")).data_fingerprint()

    before = fingerprint(lambda content: None)
    assert fingerprint(lambda content: None) == before
    assert fingerprint(lambda content: last(content).update(change)) != before


def test_ranks_share_a_steps_pictures(coco_folder):
    alone = steps(make(coco_folder).batches(1, 0))
    ranks = [steps(make(coco_folder, World(rank, 2)).batches(1, 0)) for rank in range(2)]
    for whole, one, other in zip(alone, *ranks, strict=True):
        assert sorted(one[0] + other[0]) == sorted(whole[0])


def test_rows_are_proposals_with_labels_groups_and_the_other_losses(task):
    batch, student, teacher = next(task.batches(1, 0)), network().train(), frozen(network(1))
    rows = task.rows(student, teacher, batch)
    assert rows.student.shape == rows.teacher.shape == (32, 4)
    assert rows.total == 32
    assert torch.equal(rows.groups, (rows.targets > 0).long())
    assert rows.group_names == ("background", "foreground")
    assert sorted(rows.other_losses) == ["box", "objectness", "rpn_box"]
    assert rows.student.requires_grad
    assert not rows.teacher.requires_grad
    assert not rows.teacher.is_inference()
    assert task.rows(student, None, batch).teacher is None


def test_the_draw_of_proposals_is_the_global_generators(task):
    """Which the loop seeds anew from (seed, step)."""
    batch, student = next(task.batches(1, 0)), network(norm="frozen").train()

    def draw(seed):
        torch.manual_seed(seed)
        return task.rows(student, None, batch)

    assert torch.equal(draw(5).student, draw(5).student)
    assert not torch.equal(draw(5).student, draw(6).student)


def terms_of(rows, chosen=slice(None), temperature=2.0):
    distiller = Distiller(ConstantTemperature(temperature), None, KD(0.0, 1.0))
    return distiller(
        rows.student[chosen], rows.teacher[chosen], rows.targets[chosen], position=0.0
    ).loss


def test_a_student_like_its_teacher_has_nothing_to_learn_from_it(task):
    student = network(norm="frozen")
    rows = task.rows(student.train(), frozen(copy.deepcopy(student)), next(task.batches(1, 0)))
    loss = terms_of(rows)
    (gradient,) = torch.autograd.grad(loss, rows.student)
    assert abs(loss.item()) < 1e-8
    assert gradient.abs().max() < 1e-8
    other = task.rows(student, frozen(network(1, norm="frozen")), next(task.batches(1, 0)))
    assert terms_of(other) > 1e-5  # the bound above can be missed


def test_without_its_background_rows_a_step_is_another(task):
    rows = task.rows(network().train(), frozen(network(1)), next(task.batches(1, 0)))
    assert rows.targets.gt(0).any()
    assert rows.targets.eq(0).any()
    whole, objects = terms_of(rows), terms_of(rows, rows.targets > 0)
    assert abs(whole - objects) > 1e-3 * whole


POLICIES = {
    "constant": lambda: ConstantTemperature(4.0),
    "annealed": lambda: AnnealedTemperature(),
    "global": lambda: GlobalTemperature(),
    "instance": lambda: InstanceTemperature(num_classes=4, hidden=8),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("objective", [KD(1.0, 1.0), DKD(beta=0.25)], ids=["kd", "dkd"])
@pytest.mark.parametrize("transform", [None, LogitStandardization()], ids=["plain", "standardized"])
def test_every_policy_and_objective_works_on_proposals(task, policy, objective, transform):
    made = POLICIES[policy]()
    schedule = CosineLambda() if getattr(made, "learned", False) else None
    distiller = Distiller(made, schedule, objective, transform)
    student = network().train()
    rows = task.rows(student, frozen(network(1)), next(task.batches(1, 0)))
    outcome = distiller(
        rows.student,
        rows.teacher,
        rows.targets,
        position=3.0,
        total_rows=rows.total,
        other_losses=rows.other_losses,
        groups=rows.groups,
        group_names=rows.group_names,
    )
    outcome.loss.backward()
    assert outcome.loss.isfinite()
    assert student.roi_heads.box_predictor.cls_score.weight.grad.abs().sum() > 0
    assert student.backbone.body.conv1.weight.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
    per_row = policy == "instance"
    assert outcome.temperature.shape == ((32, 1) if per_row else ())


def test_groups_are_reported_apart(task):
    distiller = Distiller(
        InstanceTemperature(num_classes=4, hidden=8), CosineLambda(), KD(1.0, 1.0)
    )
    nn.init.normal_(distiller.policy.output.weight)
    rows = task.rows(network().train(), frozen(network(1)), next(task.batches(1, 0)))
    outcome = distiller(
        rows.student,
        rows.teacher,
        rows.targets,
        position=0.0,
        groups=rows.groups,
        group_names=rows.group_names,
    )
    meter = Meter(CPU)
    meter.update(0, outcome, (torch.tensor(1.0), torch.tensor(1.0)))
    told = meter.read()
    ce = nn.functional.cross_entropy(rows.student, rows.targets, reduction="none")
    objects = rows.targets > 0
    assert told["share_foreground"] == pytest.approx(objects.float().mean().item())
    assert told["ce_foreground"] == pytest.approx(ce[objects].mean().item(), rel=1e-5)
    assert told["ce_background"] == pytest.approx(ce[~objects].mean().item(), rel=1e-5)
    t = outcome.temperature.flatten()
    assert told["temperature_foreground"] == pytest.approx(t[objects].mean().item(), rel=1e-5)
    assert told["temperature"] == pytest.approx(t.mean().item(), rel=1e-5)
    assert not any("@" in name for name in told)
    assert sorted(meter.losses) == ["ce", "kd", "loss"]


def test_parts_of_a_step_are_merged_with_their_groups(task):
    rows = task.rows(network().train(), frozen(network(1)), next(task.batches(1, 0)))
    distiller = Distiller(ConstantTemperature(2.0), None, KD(1.0, 1.0))
    distiller.at(0.0)

    def outcome(cut):
        given = (rows.student[cut], rows.teacher[cut], rows.targets[cut])
        named = {"groups": rows.groups[cut], "group_names": rows.group_names}
        return distiller(*given, total_rows=rows.total, **named)

    whole, merged = outcome(slice(None)), merge([outcome(slice(0, 11)), outcome(slice(11, None))])
    assert whole.groups.keys() == merged.groups.keys()
    for name, value in whole.groups.items():
        torch.testing.assert_close(merged.groups[name], value)
    torch.testing.assert_close(merged.loss, whole.loss.detach())


def test_background_rows_may_count_for_less(coco_folder):
    """With weight 0 the loss is the objects' alone, and T* is that of their loss."""
    dataset = COCO(str(coco_folder), **SIZES)
    loading = Loading(batch_size=2, seed=0)
    light = DetectionTask(dataset, dataset.load(), loading, CPU, World(), background_weight=0.0)
    student, teacher = network(norm="frozen").train(), frozen(network(1))
    torch.manual_seed(0)
    rows = light.rows(student, teacher, next(light.batches(1, 0)))
    distiller = Distiller(ConstantTemperature(2.0), None, KD(0.0, 1.0))
    given = (rows.student, rows.teacher, rows.targets)
    outcome = distiller(*given, position=0.0, row_weights=rows.weights)
    objects = rows.targets > 0
    share = objects.float().mean()
    torch.testing.assert_close(outcome.loss, terms_of(rows, objects) * share)
    torch.testing.assert_close(outcome.terms["kd"], terms_of(rows).detach())  # a plain mean
    probe = Probe(Instrument(probe_size=3, points=9), light, teacher).measure(student, distiller)
    plain = Probe(Instrument(probe_size=3, points=9), make(coco_folder), teacher)
    assert probe["losses"] != plain.measure(student, distiller)["losses"]
    assert make(coco_folder).rows(student, teacher, next(light.batches(1, 0))).weights is None


def test_the_probe_measures_rows_and_repeats_itself(task):
    settings = Instrument(probe_size=3, points=9)
    distiller = Distiller(
        InstanceTemperature(num_classes=4, hidden=8), CosineLambda(), KD(1.0, 1.0)
    )
    distiller.at(1.0)
    student, probe = network(), Probe(settings, task, frozen(network(1)))
    torch.manual_seed(1)
    one = probe.measure(student, distiller)
    torch.manual_seed(2)
    assert probe.measure(student, distiller) == one
    assert len(one["rows"]) == 3 * 16
    groups = {row[0] for row in one["rows"]}
    assert groups == {"background", "foreground"}
    assert {row[1] for row in one["rows"]} <= {"background", "square", "tall", "wide"}
    constant = Distiller(ConstantTemperature(4.0), None, KD(1.0, 1.0))
    constant.at(1.0)
    assert probe.measure(student, constant)["rows"] == []


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


def test_each_categorys_ap_on_request(coco_folder):
    task = make(coco_folder)
    task._dataset = COCO(str(coco_folder), per_class=True, **SIZES)
    metrics = task.evaluate(Oracle())
    assert {name for name in metrics if "/" in name} == {"ap/square", "ap/tall", "ap/wide"}


def test_an_unreadable_picture_stops_the_epoch_and_the_evaluation(coco_folder):
    task = make(coco_folder, workers=1)
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
    told = command(*small, "--gin_param=Runtime.accumulate = 2")
    assert told.status == 2
    assert "Runtime.accumulate = 2: expected 1 for detection" in told.err
    told = command(*small, "--gin_param=compile = True")
    assert told.status == 2
    assert "inputs of one shape" in told.err


def test_a_teacher_in_half_precision_rounds_its_rows(task):
    model = network(1)
    batch = next(task.batches(1, 0))
    sampled = network().train()(batch.inputs, batch.targets)
    exact = frozen(model)(dataclasses.replace(batch, inputs=sampled.proposals))
    half = FrozenDetector(model, CPU, "float32", "fingerprint", half_rows=True)
    rounded = half(dataclasses.replace(batch, inputs=sampled.proposals))
    assert torch.equal(rounded, exact.half().float())
    assert isinstance(half.network, Detector)
    assert not any(p.requires_grad for p in half.network.parameters())


def test_batches_and_networks_that_do_not_fit_are_refused(coco_folder):
    with pytest.raises(ConfigError, match="batch_size = 9"):
        make(coco_folder, batch_size=9)
