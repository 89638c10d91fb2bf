"""Parts of a game that do not fit together are refused in every loop: the Distiller does it."""

import types

import pytest
import torch

from ctkd import (
    DIST,
    DKD,
    KD,
    ConstantLambda,
    ConstantTemperature,
    Distiller,
    GlobalTemperature,
    LogitStandardization,
)
from ctkd.adapters.policy_steps import PolicySteps, check_supported
from ctkd.engine.tasks.language_checks import check_blocks
from ctkd.errors import ConfigError
from ctkd.losses.alm import ALM
from ctkd.losses.columns import SharedColumns, SortedColumns
from ctkd.losses.features.sp import SP
from ctkd.losses.prefix_bytes import PrefixBytes
from ctkd.losses.uld import ULD
from ctkd.temperature.exact import ExactTemperature

ROWS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(6) % 4


def game(objective, transform=None, policy=None, **given):
    policy = policy or ConstantTemperature(2.0)
    schedule = ConstantLambda(1.0) if policy.learned else None
    return Distiller(policy, schedule, objective, transform, **given)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((DKD(), SortedColumns()), "DKD reads the column of the target, and SortedColumns gives"),
        ((KD(), SortedColumns(padded=True)), "padded = True with KD: the added columns"),
        ((ULD(), SortedColumns(padded=True), GlobalTemperature()), "grows with T without limit"),
        ((ALM(), LogitStandardization()), "ALM compares chunks of text"),
        ((DKD(), None, ExactTemperature()), "ExactTemperature computes T from the loss of KD"),
    ],
)
def test_parts_that_do_not_fit_are_refused_when_the_game_is_made(parts, message):
    with pytest.raises(ConfigError, match=message):
        game(*parts)


@pytest.mark.parametrize("columns", [SharedColumns(), PrefixBytes()])
def test_a_transform_that_is_fitted_later_is_refused_at_its_first_call(columns):
    made = game(DKD(), columns)
    columns.fit([b"x", b"a", b"b", b"c"], [b"c", b"a", b"b", b"q"])
    with pytest.raises(ConfigError, match="DKD reads the column of the target"):
        made(ROWS, ROWS, TARGETS, position=0.0)
    with pytest.raises(ConfigError, match="DKD reads the column of the target"):
        game(DKD(), columns)
    game(KD(), columns)(ROWS, ROWS, TARGETS, position=0.0)


def test_columns_that_keep_their_numbers_may_be_read():
    columns, vocabulary = SharedColumns(), [b"a", b"b", b"c", b"d"]
    columns.fit(vocabulary, [*vocabulary, b"e"])
    wider = torch.cat([ROWS, ROWS[:, :1]], 1)
    found = game(DKD(), columns)(2 * ROWS, wider, TARGETS, position=0.0)
    expected = game(DKD())(2 * ROWS, ROWS, TARGETS, position=0.0)
    assert torch.equal(found.loss, expected.loss)


@pytest.mark.parametrize(
    "made", [game(DIST()), game(KD(), policy=ExactTemperature()), game(KD(), features=[SP()])]
)
def test_a_part_of_a_step_is_refused_where_all_rows_are_needed(made):
    features = ({"last": ROWS}, {"last": ROWS})
    given = {"position": 0.0, "features": features if made.features else None}
    with pytest.raises(ConfigError, match="needs all rows of a step at once, and got 6 of total_"):
        made(2 * ROWS, ROWS, TARGETS, total_rows=12, **given)
    assert made(2 * ROWS, ROWS, TARGETS, total_rows=6, **given).loss.isfinite()


def test_an_adapter_refuses_them_before_it_trains():
    with pytest.raises(ConfigError, match="DIST compares the rows of a step"):
        check_supported(game(DIST()))
    with pytest.raises(ConfigError, match="ExactTemperature needs all rows of a step at once, and"):
        check_supported(game(KD(), policy=ExactTemperature()))


def test_blocks_are_refused_where_all_rows_are_needed():
    run = types.SimpleNamespace(distiller=game(KD(), policy=ExactTemperature()))
    run.task_part = types.SimpleNamespace(block=64)
    with pytest.raises(ConfigError, match="= 64: ExactTemperature needs all rows; set it to None"):
        check_blocks(run)


def test_an_optimizer_that_would_not_step_the_policy_is_refused():
    made = game(KD(), policy=GlobalTemperature())
    other = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="policy_optimizer lacks parameters of the Distiller"):
        PolicySteps(made, other)
    with pytest.raises(ConfigError, match="policy_optimizer = 'sgd': expected an optimizer"):
        PolicySteps(made, "sgd")
    PolicySteps(made, torch.optim.SGD(made.parameters(), lr=0.1))


def test_a_text_or_nothing_in_place_of_a_number_is_refused():
    for make in (lambda: ConstantTemperature("4"), lambda: KD(None), lambda: ConstantLambda("1")):
        with pytest.raises(ConfigError, match=r"= ('4'|None|'1'): expected a finite number"):
            make()
