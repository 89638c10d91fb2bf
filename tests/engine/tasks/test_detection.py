"""The detection task: rows of proposals, their losses, groups and probe."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from ctkd.adversary.schedules import CosineLambda
from ctkd.distiller import Distiller
from ctkd.engine.config.settings import Instrument
from ctkd.engine.diagnostics.landscape import Probe
from ctkd.engine.distributed.reduce import merge
from ctkd.engine.metrics import Meter
from ctkd.engine.tasks.detection import FrozenDetector
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


def network(seed=0, **more):
    torch.manual_seed(seed)
    tiny = {"pyramid_channels": 16, "rois_per_image": 16, "anchors_per_image": 16}
    tiny |= {"anchor_sizes": (8, 16, 24, 32, 48), "min_size": 64, "max_size": 96}
    return MODELS.get("fasterrcnn_resnet18_fpn")(num_classes=4, **{**tiny, **more})


def frozen(model):
    return FrozenDetector(model, CPU, "float32", "fingerprint")


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
    values = meter.read()
    ce = nn.functional.cross_entropy(rows.student, rows.targets, reduction="none")
    objects = rows.targets > 0
    assert values["share_foreground"] == pytest.approx(objects.float().mean().item())
    assert values["ce_foreground"] == pytest.approx(ce[objects].mean().item(), rel=1e-5)
    assert values["ce_background"] == pytest.approx(ce[~objects].mean().item(), rel=1e-5)
    t = outcome.temperature.flatten()
    assert values["temperature_foreground"] == pytest.approx(t[objects].mean().item(), rel=1e-5)
    assert values["temperature"] == pytest.approx(t.mean().item(), rel=1e-5)
    assert not any("@" in name for name in values)
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


def test_background_rows_may_count_for_less(make):
    """With weight 0 the loss is the objects' alone, and T* is that of their loss."""
    light = make(background_weight=0.0)
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
    plain = Probe(Instrument(probe_size=3, points=9), make(), teacher)
    assert probe["losses"] != plain.measure(student, distiller)["losses"]
    assert make().rows(student, teacher, next(light.batches(1, 0))).weights is None


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
