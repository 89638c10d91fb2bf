"""Warnings about a run's settings and measurements, as texts for the user; none stops a run."""

from collections.abc import Sequence
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from ctkd.distiller import Distiller
from ctkd.engine.config.build import Run
from ctkd.engine.metrics import Meter
from ctkd.losses.few_classes import limits

AT_BOUND = 0.01  # of the span of T: nearer than this to a bound counts as being there
TOP5_KINDS = ("resident", "streamed")  # the kinds of data sets whose task measures test_top5


def faults_of_run(run: Run) -> list[str]:
    """The warnings that follow from the settings, before training."""
    found = faults_of_classes(run)
    if run.teacher_network is not None and run.teacher.rows != "float32":
        found.append(
            f"Teacher.rows = {run.teacher.rows!r} rounds the teacher's logits: inexact, not to be "
            "compared with runs of 'float32'"
        )
    parts = run.runtime.accumulate
    if parts > 1 and any(isinstance(m, _BatchNorm) for m in run.student.modules()):
        found.append(
            f"Runtime.accumulate = {parts}: the student's batch normalisations take the statistics "
            "of each part, not of the step: not the run that accumulate = 1 makes"
        )
    bounds, decay = run.distiller.bounds, run.optimizer.policy_weight_decay
    if run.distiller.learned and decay > 0:
        middle = f" (T = {sum(bounds) / 2:g})" if bounds else ""
        found.append(
            f"SGD.policy_weight_decay = {decay} pulls the raw temperature to 0, T to the middle "
            f"of its range{middle}, whatever the loss says"
        )
    return found


def faults_of_classes(run: Run) -> list[str]:
    """What the objective, the transform and the metrics lose with the data set's few classes."""
    classes, distiller = run.dataset.num_classes, run.distiller
    found = [
        text
        for part in (distiller.objective, distiller.transform)
        for text in limits(part, classes, distiller.learned)
    ]
    if run.dataset.kind == "detection":
        found = [f"{text} (a detector counts the background as one class)" for text in found]
    if run.dataset.kind in TOP5_KINDS and classes <= 5:
        found.append(
            f"test_top5 is always 100 % with {classes} classes, because five guesses name every "
            "class: read test_top1"
        )
    return found


def faults_of_epoch(distiller: Distiller, meter: Meter) -> list[str]:
    """The warnings of an epoch: a temperature that stayed at a bound throughout."""
    measured = meter.read()
    if distiller.bounds is None or "temperature_low" not in measured:
        return []
    bound = _bound_held(distiller.bounds, measured["temperature_low"], measured["temperature_high"])
    return [f"T stood at its {bound} for the whole epoch: it is no longer learned"] if bound else []


def faults_of_probe(measured: dict[str, Any]) -> list[str]:
    """The warnings of the instrument's rows: 95 % of their temperatures are at a bound."""
    if not measured["quantiles"] or not measured["bounds"]:
        return []
    lowest, *_, highest = measured["quantiles"]
    bound = _bound_held(measured["bounds"], lowest, highest)
    if bound is None:
        return []
    return [
        f"T stands at its {bound} for at least 95 % of the probe's rows: hardly one per sample any "
        "more (lower SGD.policy_lr_scale; of InstanceTemperature's inputs 'probabilities' are "
        "steadier than 'logits')"
    ]


def _bound_held(bounds: Sequence[float], lowest: float, highest: float) -> str | None:
    """The bound, in words, that temperatures from `lowest` to `highest` all stand at."""
    low, high = bounds
    near = AT_BOUND * (high - low)
    if highest < low + near:
        return f"lower bound {low:g}"
    return f"upper bound {high:g}" if lowest > high - near else None
