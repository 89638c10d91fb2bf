"""A trial: a run of any configuration cut to seconds, with the files of a full run.

`trial = True` (or `--trial`) shortens epochs, steps, batches, evaluation, probe and the training of
a teacher together; a detector's pictures are smaller. The name of the run ends with "-trial", so
that no table takes it for a result.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ctkd.cores import cores_of_process, processes_of_run
from ctkd.engine.config.settings import Instrument, Recipe, Runtime

if TYPE_CHECKING:
    from ctkd.engine.config.run import Run

SUFFIX = "-trial"
EPOCHS, STEPS = 2, 2
# By the kind of the data set: image files are usually large; pictures and texts make many rows.
SAMPLES = {"detection": 2, "text": 4, "streamed": 4}  # of a step
EVALUATED = {"detection": 4, "text": 8, "streamed": 16}  # of each part of the test data
SAMPLES_ELSEWHERE, EVALUATED_ELSEWHERE = 16, 64


def cut(
    recipe: Recipe, runtime: Runtime, instrument: Instrument, kind: str
) -> tuple[Recipe, Runtime, Instrument]:
    """The settings of a trial; those of another run as they are.

    All schedules are passed through in a trial's few steps. The probe has as many samples as a step
    on one rank. There are no more workers than cores; their number changes no sample.
    """
    if not recipe.trial:
        return recipe, runtime, instrument
    size = SAMPLES.get(kind, SAMPLES_ELSEWHERE)
    shortened = replace(
        recipe,
        epochs=min(recipe.epochs, EPOCHS),
        recipe_epochs=recipe.recipe_epochs or recipe.epochs,
        steps_per_epoch=min(recipe.steps_per_epoch or STEPS, STEPS),
        batch_size=min(recipe.batch_size, max(size, _smallest_step(runtime))),
        eval_every=1,
    )
    workers = min(runtime.workers, cores_of_process())
    probe_size = min(instrument.probe_size, size)
    return (
        shortened,
        replace(runtime, workers=workers),
        replace(instrument, probe_size=probe_size),
    )


def _smallest_step(runtime: Runtime) -> int:
    """Two samples for each part on each rank: batch normalization needs two."""
    return 2 * processes_of_run() * runtime.accumulate


def evaluated(recipe: Recipe, kind: str) -> int | None:
    """How many samples of each part of the test data are evaluated; None for all."""
    return EVALUATED.get(kind, EVALUATED_ELSEWHERE) if recipe.trial else None


def comparable_claim(run: "Run") -> float | None:
    """The teacher's published accuracy; None where a trial evaluates a few samples."""
    compared = run.teacher_network is not None and not run.recipe.trial
    return run.teacher.published_accuracy if compared else None


def remark(summary: Mapping[str, Any]) -> str | None:
    """The last line of a trial, that its result means nothing; None for other runs."""
    if not str(summary["name"]).endswith(SUFFIX):
        return None
    measure = str(summary["primary"]).removeprefix("test_")
    return (
        f"this was a trial: {measure} is of {summary.get('evaluated_samples', 'a few')} test "
        f"samples after {summary['steps']} steps, and means nothing. It shows only that the "
        "configuration trains, evaluates and writes its files"
    )


def fault_of_trial(recipe: Recipe, kind: str) -> list[str]:
    """The warning that a run is a trial, with its sizes."""
    if not recipe.trial:
        return []
    return [
        f"this is a trial: {recipe.epochs} epochs of {recipe.steps_per_epoch} steps of "
        f"{recipe.batch_size} samples, evaluated on {evaluated(recipe, kind)}. Its numbers say "
        "nothing about the method"
    ]
