"""A trial: a run of any configuration cut to seconds, with the files of a full run.

`trial = True` (or `--trial`) shortens epochs, steps, batches, evaluation, probe and the training of
a teacher together; a detector's pictures are smaller. The name of the run ends with "-trial", so
that no table takes it for a result.
"""

from dataclasses import replace

from ctkd.engine.config.settings import Instrument, Recipe

SUFFIX = "-trial"
EPOCHS, STEPS = 2, 2
# By the kind of the data set: pictures and texts make many rows each.
SAMPLES = {"detection": 2, "text": 4}  # of a step
EVALUATED = {"detection": 4, "text": 8}  # of each part of the test data
SAMPLES_ELSEWHERE, EVALUATED_ELSEWHERE = 16, 64


def shortened(recipe: Recipe, kind: str) -> Recipe:
    """The recipe of a trial; all schedules are passed through in its few steps."""
    if not recipe.trial:
        return recipe
    return replace(
        recipe,
        epochs=min(recipe.epochs, EPOCHS),
        recipe_epochs=recipe.recipe_epochs or recipe.epochs,
        steps_per_epoch=min(recipe.steps_per_epoch or STEPS, STEPS),
        batch_size=min(recipe.batch_size, SAMPLES.get(kind, SAMPLES_ELSEWHERE)),
        eval_every=1,
    )


def smaller_probe(instrument: Instrument, recipe: Recipe, kind: str) -> Instrument:
    """The instrument of a trial: a probe of as many samples as a step."""
    if not recipe.trial:
        return instrument
    size = SAMPLES.get(kind, SAMPLES_ELSEWHERE)
    return replace(instrument, probe_size=min(instrument.probe_size, size))


def evaluated(recipe: Recipe, kind: str) -> int | None:
    """How many samples of each part of the test data are evaluated; None for all."""
    return EVALUATED.get(kind, EVALUATED_ELSEWHERE) if recipe.trial else None


def fault_of_trial(recipe: Recipe, kind: str) -> list[str]:
    """The warning that a run is a trial."""
    if not recipe.trial:
        return []
    return [
        f"this is a trial: {recipe.epochs} epochs of {recipe.steps_per_epoch} steps of "
        f"{recipe.batch_size} samples, evaluated on {evaluated(recipe, kind)}. Its numbers say "
        "nothing about the method"
    ]
