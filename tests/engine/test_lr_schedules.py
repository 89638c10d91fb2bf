"""Schedules of the learning rate: closed forms, warm-up, and the published milestones."""

import math

import pytest
from fvcore.common import param_scheduler as fvcore

from ctkd.engine.lr_schedules import ConstantLR, CosineLR, LinearLR, MultiStepLR, OneCycleLR
from ctkd.engine.optimizer_recipes import AdamWRecipe, SGDRecipe
from ctkd.errors import ConfigError

POSITIONS = [epoch / 4 for epoch in range(4 * 40)]


def rates(recipe, positions, epochs=240):
    return [recipe.lr * recipe.own_schedule(epochs)(position) for position in positions]


@pytest.mark.parametrize(
    ("schedule", "other"),
    [
        (ConstantLR, fvcore.ConstantParamScheduler(1.0)),
        (LinearLR, fvcore.LinearParamScheduler(1.0, 0.0)),
        (CosineLR, fvcore.CosineParamScheduler(1.0, 0.0)),
        (lambda **given: LinearLR(end=0.1, **given), fvcore.LinearParamScheduler(1.0, 0.1)),
        (lambda **given: CosineLR(end=0.1, **given), fvcore.CosineParamScheduler(1.0, 0.1)),
        (
            OneCycleLR,
            fvcore.CompositeParamScheduler(
                [fvcore.CosineParamScheduler(0.04, 1), fvcore.CosineParamScheduler(1, 4e-6)],
                [0.3, 0.7],
                ["rescaled", "rescaled"],
            ),
        ),
        (
            MultiStepLR,
            fvcore.MultiStepParamScheduler([1, 0.1, 0.01], milestones=[20, 30], num_updates=40),
        ),
    ],
)
def test_curves_are_those_of_fvcore(schedule, other):
    made = schedule(recipe_epochs=40)
    expected = [other(position / 40) for position in POSITIONS]
    assert [made(position) for position in POSITIONS] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", [ConstantLR, LinearLR, CosineLR, OneCycleLR])
def test_a_warm_up_comes_before_the_curve(schedule):
    warm, alone = schedule(warmup_epochs=10.0, recipe_epochs=50), schedule(recipe_epochs=40)
    assert [warm(p) for p in (2.5, 5.0, 7.5)] == pytest.approx([0.25, 0.5, 0.75])
    assert 0 < warm(0.0) < 0.01  # the first step counts
    assert [warm(10 + p) for p in POSITIONS] == pytest.approx([alone(p) for p in POSITIONS])


def test_the_published_milestones_fall_after_their_epochs():
    """0.05, ×0.1 after epochs 150, 180 and 210 (mdistiller, CTKD)."""
    published = SGDRecipe(lr=0.05, milestones=(150, 180, 210))
    found = rates(published, (0, 149.99, 150, 179.99, 180, 210, 239.99))
    expected = (0.05, 0.05, 0.005, 0.005, 0.0005, 0.00005, 0.00005)
    assert found == pytest.approx(expected, rel=1e-12)


def test_fractions_are_of_the_whole_run():
    fractions, epochs = SGDRecipe(milestones=(0.625, 0.75, 0.875)), SGDRecipe()
    positions = [position / 2 for position in range(480)]
    assert rates(fractions, positions) == rates(epochs, positions)
    assert rates(fractions, (24, 25, 30, 35), 40) == pytest.approx((0.05, 0.005, 5e-4, 5e-5))


def test_a_fraction_that_rounds_past_its_epoch_still_falls_there():
    assert 0.28 * 25 > 7
    assert rates(SGDRecipe(milestones=(0.28,)), (6.99, 7.0), 25) == pytest.approx((0.05, 0.005))


def test_milestones_count_through_the_warm_up():
    warm = SGDRecipe(lr=0.2, warmup_epochs=4.0, milestones=(100,))
    assert rates(warm, (1, 2, 3, 4, 5)) == pytest.approx((0.05, 0.1, 0.15, 0.2, 0.2))
    assert 0 < rates(warm, [0.0])[0] < 0.001
    both = MultiStepLR(warmup_epochs=4.0, recipe_epochs=8, milestones=(2,))
    assert both(3.0) == pytest.approx(0.1 * 0.75)


def test_no_milestones_is_a_constant_rate():
    assert set(rates(SGDRecipe(lr=0.3, milestones=()), range(240))) == {0.3}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: CosineLR(warmup_epochs=40.0, recipe_epochs=40), "CosineLR.warmup_epochs"),
        (lambda: CosineLR(end=1.5), "CosineLR.end"),
        (lambda: OneCycleLR(rise=-0.1), "OneCycleLR.rise"),
        (lambda: MultiStepLR(milestones=(0.5, 30)), "MultiStepLR.milestones"),
        (lambda: MultiStepLR(gamma=math.inf), "MultiStepLR.gamma"),
        (lambda: AdamWRecipe(betas=(0.9, 1.0)), "AdamW.betas"),
        (lambda: AdamWRecipe(layer_decay=0.0), "AdamW.layer_decay"),
    ],
)
def test_settings_out_of_range_are_refused(make, name):
    with pytest.raises(ConfigError, match=rf"^{name} = .*: expected "):
        make()
