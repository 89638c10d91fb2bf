"""Warnings about a run's settings and measurements, as texts for the user; none stops a run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from ctkd.cores import cores_of_process
from ctkd.data.dataset import ImageDataset
from ctkd.distiller import Distiller
from ctkd.engine.config.replayed_run import faults_of_replayed
from ctkd.engine.config.run import Run
from ctkd.engine.metrics import Meter
from ctkd.engine.task import Task
from ctkd.losses.few_classes import limits
from ctkd.registry import name_of

AT_BOUND = 0.01  # of the range of T: a T nearer to a bound than this is at the bound
READ_BY_WORKERS = ("streamed", "detection")  # the kinds of data sets that have workers
TOP5_KINDS = ("resident", "streamed")  # the kinds of data sets whose task measures test_top5
CLAIM_MISSED = 1.0  # points below the published accuracy that are reported
# Mean and standard deviation per color of published checkpoints, of pixels in [0, 1].
NORMALIZATIONS = {
    "the distillation literature, CIFAR-100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "chenyaofo's models, CIFAR-100": ((0.507, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "CIFAR-10, another common deviation": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)),
    "pixels in [-1, 1]": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def faults_of_run(run: Run) -> list[str]:
    """Warnings about the settings, before training."""
    found = [*run.config_faults, *faults_of_classes(run)]
    if run.teacher_network is not None and run.teacher.rows != "float32":
        found.append(
            f"Teacher.rows = {run.teacher.rows!r} rounds the teacher's logits: inexact, not to be "
            "compared with runs of 'float32'"
        )
    parts = run.runtime.accumulate
    if parts > 1 and any(isinstance(m, _BatchNorm) for m in run.student.modules()):
        found.append(
            f"Runtime.accumulate = {parts}: the student's batch normalizations take the statistics "
            "of each part, not of the step: not the run that accumulate = 1 makes"
        )
    found += faults_of_workers(run) + faults_of_policy_optimizer(run)
    return found + faults_of_replayed(run)


def faults_of_workers(run: Run) -> list[str]:
    """A warning about more workers than cores, which read no faster, and take memory."""
    asked, cores = run.settings["runtime"]["Runtime.workers"], cores_of_process()
    if run.dataset.kind not in READ_BY_WORKERS or asked <= cores:
        return []
    owner = f"workers = {asked} is more than the {cores} cores that this process may use"
    if run.recipe.trial:
        return [f"{owner}: the trial starts {run.runtime.workers}"]
    return [f"{owner}: more workers take memory and seldom read faster. Set --workers={cores}"]


def faults_of_policy_optimizer(run: Run) -> list[str]:
    """Warnings about what moves a learned temperature."""
    if not run.distiller.learned:
        return []
    optimizer, bounds = run.optimizers.policy, run.distiller.bounds
    name, decay, found = name_of(type(optimizer)), optimizer.policy_weight_decay, []
    if decay > 0:
        middle = f" (T = {sum(bounds) / 2:g})" if bounds else ""
        found.append(
            f"{name}.policy_weight_decay = {decay} pulls the raw temperature to 0, T to the middle "
            f"of its range{middle}, independent of the loss"
        )
    if optimizer.hides_lambda:
        found.append(
            f"Recipe.policy_optimizer = @{name} divides the policy's gradient by its size: λ has "
            "hardly any effect, only its sign. @SGD keeps it"
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


def faults_of_teacher(run: Run, metrics: Mapping[str, float], task: Task) -> list[str]:
    """A warning if the teacher misses its published accuracy.

    Args:
        metrics: of the teacher, as `judge` gives them.
    """
    measured = metrics.get(f"teacher_{task.monitor.removeprefix('test_')}")
    claimed = run.teacher.published_accuracy
    if measured is None or claimed is None or measured >= claimed - CLAIM_MISSED:
        return []
    if run.recipe.trial or (_trained_here(run) and task.is_cut):
        return []  # for trying things out; the teacher's training was cut too
    return [
        f"the teacher scores {measured:.2f} %, {claimed - measured:.2f} points below its published "
        f"accuracy, Teacher.published_accuracy = {claimed:g}. {cause_of_weak_teacher(run)}. If the "
        "score is right, set Teacher.published_accuracy to it"
    ]


def cause_of_weak_teacher(run: Run) -> str:
    """The likely cause, and what to set, for a teacher that scores too low."""
    if _trained_here(run):
        return (
            f"It was trained here, by Teacher.run = {run.teacher.run!r}, perhaps for fewer epochs "
            "than the published one; teacher_weights takes other weights"
        )
    name = run.settings["recipe"]["Recipe.dataset"].removeprefix("@")
    others = "other weights, another order of the labels, other data"
    settable = f"{name}.mean" in run.settings["recipe"]
    if not settable or not isinstance(run.dataset, ImageDataset):
        return f"Likely causes: {others}"
    now = tuple(run.dataset.mean), tuple(run.dataset.std)
    common = [
        f"{mean} and {std} ({source})"
        for source, (mean, std) in NORMALIZATIONS.items()
        if (mean, std) != now
    ]
    return (
        f"The likely cause is the normalization: {name}.mean = {now[0]} and {name}.std = {now[1]} "
        "must be the mean and the deviation that the teacher was trained with. Common ones are "
        f"{', '.join(common)}. Set both with --gin_param. Other causes: {others}"
    )


def _trained_here(run: Run) -> bool:
    """Whether the run trained its teacher, instead of taking given weights."""
    return run.settings["runtime"]["Teacher.weights"] is None


def faults_of_epoch(distiller: Distiller, meter: Meter) -> list[str]:
    """A warning after an epoch in which T was at a bound at every step."""
    measured = meter.read()
    if distiller.bounds is None or "temperature_low" not in measured:
        return []
    bound = _bound_held(distiller.bounds, measured["temperature_low"], measured["temperature_high"])
    return [f"T was at its {bound} for the whole epoch: it is no longer learned"] if bound else []


def faults_of_probe(measured: dict[str, Any], first: bool = False) -> list[str]:
    """Warnings about a measured landscape, the `first` of a run or a later one.

    The first one has a warning if a learned T that climbs L(T) comes to a bound, or if T is on the
    wrong side of a local minimum of L; a later one if T is at a bound for 95 % of the rows.
    """
    if measured["bounds"] and first:
        return _fault_of_start(measured) or without_maximum(measured)  # the cause, once
    if not measured["quantiles"] or not measured["bounds"]:
        return []
    lowest, *_, highest = measured["quantiles"]
    bound = _bound_held(measured["bounds"], lowest, highest)
    if bound is None:
        return []
    return [
        f"T is at its {bound} for at least 95 % of the probe's rows: it is no longer one "
        "T per sample (lower SGD.policy_lr_scale; of InstanceTemperature's inputs 'probabilities' "
        "are steadier than 'logits')"
    ]


def without_maximum(measured: dict[str, Any]) -> list[str]:
    """A warning if T, climbing from where it is, finds no maximum between its bounds."""
    low, high = measured["bounds"]
    start, top = measured["temperature"], climb(measured)
    bound = _bound_held((low, high), top, top)
    if bound is None:
        return []
    return [
        f"from T = {start:.3g} the loss {'rises' if top > start else 'falls'} with T as far as the "
        f"{bound}, on the probe's batch: it has no maximum on the way. A learned T will go to this "
        "bound and stay there, unless the loss changes while the student learns. For a fixed "
        "temperature set Method.policy = @ConstantTemperature and Method.schedule = None"
    ]


def climb(measured: dict[str, Any]) -> float:
    """The temperature of the grid at which L(T), climbed from the policy's T, stops to rise."""
    temperatures, losses = measured["temperatures"], measured["losses"]
    start = measured["temperature"]
    index = min(range(len(losses)), key=lambda k: abs(math.log(temperatures[k] / start)))
    while True:
        near = range(max(index - 1, 0), min(index + 2, len(losses)))
        best = max(near, key=losses.__getitem__)
        if losses[best] <= losses[index]:
            return float(temperatures[index])
        index = best


def _fault_of_start(measured: dict[str, Any]) -> list[str]:
    """A warning if a local minimum of L is between T and T*: the gradient leads away from T*."""
    grid, losses = measured["temperatures"], measured["losses"]
    start, t_star = measured["temperature"], measured["t_star"]
    low, high = sorted((start, t_star))
    lowest = [
        t
        for t, before, at, after in zip(grid[1:], losses, losses[1:], losses[2:], strict=False)
        if before > at < after and low < t < high
    ]
    if not lowest:
        return []
    minimum = min(lowest, key=lambda t: abs(t - start))
    return [
        f"T starts at {start:.4g}, and a local minimum of L at T = {minimum:.3g} is between it "
        f"and the maximum, T* = {t_star:.3g}: as long as it does, the adversary climbs away from "
        "T*. "
        "Start T nearer to T* (the policy's raw_init, tau_init and tau_range)"
    ]


def _bound_held(bounds: Sequence[float], lowest: float, highest: float) -> str | None:
    """The bound, in words, at which all temperatures from `lowest` to `highest` are; or None."""
    low, high = bounds
    near = AT_BOUND * (high - low)
    if highest < low + near:
        return f"lower bound {low:g}"
    return f"upper bound {high:g}" if lowest > high - near else None
