"""The four sets of settings: ranges, the position in the recipe, and how values are spelled."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctkd.engine.config.settings import Instrument, Method, Recipe, Runtime, Seed, Teacher, spell
from ctkd.errors import ConfigError

COUNT = st.integers(1, 500)
ANYTHING = {"dataset": object, "student": object}


def recipe(**values):
    return Recipe(**ANYTHING | values)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Method(), "Method.objective"),
        (lambda: Recipe(student=object), "Recipe.dataset"),
        (lambda: Recipe(dataset=object), "Recipe.student"),
        (lambda: recipe(epochs=0), "Recipe.epochs"),
        (lambda: recipe(recipe_epochs=0), "Recipe.recipe_epochs"),
        (lambda: recipe(batch_size=0), "Recipe.batch_size"),
        (lambda: recipe(steps_per_epoch=0), "Recipe.steps_per_epoch"),
        (lambda: recipe(eval_every=-1), "Recipe.eval_every"),
        (lambda: recipe(ema_decay=1.0), "Recipe.ema_decay"),
        (lambda: Teacher(min_accuracy=101.0), "Teacher.min_accuracy"),
        (lambda: Teacher(min_accuracy=math.nan), "Teacher.min_accuracy"),
        (lambda: Teacher(published_accuracy=-1.0), "Teacher.published_accuracy"),
        (lambda: Seed(-1), "Seed.seed"),
        (lambda: Runtime(accumulate=0), "Runtime.accumulate"),
        (lambda: Runtime(checkpoint_steps=0), "Runtime.checkpoint_steps"),
        (lambda: Runtime(keep_checkpoints=0), "Runtime.keep_checkpoints"),
        (lambda: Runtime(workers=-1), "Runtime.workers"),
        (lambda: Runtime(threads=0), "Runtime.threads"),
        (lambda: Instrument(probe_size=1), "Instrument.probe_size"),
        (lambda: Instrument(points=2), "Instrument.points"),
        (lambda: Instrument(trace_epochs=-1), "Instrument.trace_epochs"),
        (lambda: Instrument(low=0.0), "Instrument.low"),
        (lambda: Instrument(low=50.0), "Instrument.high"),
        (lambda: Instrument(high=math.inf), "Instrument.high"),
        (lambda: Runtime(device="gpu"), "Runtime.device"),
    ],
)
def test_values_out_of_range_are_refused_by_their_binding(make, name):
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(f"{name} = ")
    assert ": expected " in str(caught.value)


@given(COUNT, COUNT, COUNT, st.integers(0, 500))
def test_whole_epochs_of_a_full_run_are_whole_positions(epochs, steps_per_epoch, _, epoch):
    assert recipe(epochs=epochs).position(epoch * steps_per_epoch, steps_per_epoch) == epoch


@given(st.integers(1, 50), st.integers(1, 20), COUNT, st.integers(0, 50))
def test_a_shortened_run_passes_through_the_whole_recipe(epochs, factor, steps_per_epoch, epoch):
    """24 epochs of a recipe of 240: every epoch is ten of the recipe's, exactly."""
    short = recipe(epochs=epochs, recipe_epochs=epochs * factor)
    assert short.position(epoch * steps_per_epoch, steps_per_epoch) == epoch * factor
    assert short.position(epochs * steps_per_epoch, steps_per_epoch) == epochs * factor


@given(COUNT, COUNT, st.integers(1, 100), st.integers(0, 1000))
def test_a_step_is_its_share_of_an_epoch(epochs, recipe_epochs, steps_per_epoch, step):
    position = recipe(epochs=epochs, recipe_epochs=recipe_epochs).position(step, steps_per_epoch)
    assert position == pytest.approx(step / steps_per_epoch * recipe_epochs / epochs)


class Part:
    pass


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (Part, "@Part"),
        ((1, 2.5), [1, 2.5]),
        ("text", "text"),
        (None, None),
        (0.1, 0.1),
        (True, True),
    ],
)
def test_settings_are_spelled_as_json_holds_them(value, spelled):
    assert spell(value) == spelled
