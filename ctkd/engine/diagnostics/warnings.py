"""What a run can know of its own mistakes, in a user's words; nothing here stops a run."""

from collections.abc import Sequence
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from ctkd.distiller import Distiller
from ctkd.engine.config.build import Run
from ctkd.engine.metrics import Meter

AT_BOUND = 0.01  # of the span of T: nearer than this to a bound counts as being there


def faults_of_run(run: Run) -> list[str]:
    """What the settings give reason to say before training."""
    found = []
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


def faults_of_epoch(distiller: Distiller, meter: Meter) -> list[str]:
    """What an epoch gave reason to say: a temperature that stood at a bound throughout."""
    measured = meter.read()
    if distiller.bounds is None or "temperature_low" not in measured:
        return []
    bound = _bound_held(distiller.bounds, measured["temperature_low"], measured["temperature_high"])
    return [f"T stood at its {bound} for the whole epoch: it is no longer learned"] if bound else []


def faults_of_probe(measured: dict[str, Any]) -> list[str]:
    """What the instrument's rows give reason to say: temperatures of which 95 % are at a bound."""
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
