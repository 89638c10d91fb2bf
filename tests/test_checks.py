"""The wording and the judgment of settings that come from Gin, which checks no types."""

import math
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctkd.checks import check_types, expect, finite, fits, suggest
from ctkd.errors import ConfigError, UserError

FITTING = [
    (3, int),
    (3, float),
    (3.5, float),
    ("a", str),
    (True, bool),
    (None, int | None),
    (3, int | None),
    ("linear", Literal["linear", "cosine"]),
    ((1, 2.5), Sequence[float]),
    ([], Sequence[float]),
    ([1], list[int]),
    ((1, 2), tuple[int, ...]),
    (len, Callable[..., Any]),
    (len, Callable),
    (object(), Any),
    (object(), dict),  # left to the constructor
]
UNFIT = [
    (3.0, int),
    ("3", int),
    (True, int),  # a bool is no number, although Python says so
    (False, float),
    (None, float),
    (1, bool),
    (0.5, str),
    ("3", int | None),
    ("Linear", Literal["linear", "cosine"]),
    ("abc", Sequence[str]),  # a text is no list of texts
    ((1, "2"), Sequence[float]),
    (0.6, Sequence[float]),
    ("len", Callable[..., Any]),
    (3, Callable),
    (3, None),
]


@pytest.mark.parametrize(("value", "annotation"), FITTING)
def test_fitting_values(value, annotation):
    assert fits(value, annotation)


@pytest.mark.parametrize(("value", "annotation"), UNFIT)
def test_unfit_values(value, annotation):
    assert not fits(value, annotation)


@given(st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none()))
def test_a_union_accepts_what_one_of_its_members_does(value):
    assert fits(value, int | str | None) == any(fits(value, kind) for kind in (int, str, None))


class Owner:
    def __init__(
        self,
        count: int = 1,
        rate: float | None = None,
        shape: Literal["linear", "cosine"] = "linear",
        marks: Sequence[float] = (),
        part: Callable[..., Any] | None = None,
        label: str = "",
        quick: bool = False,
        free=None,
    ) -> None: ...


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        ("count", "3", "Owner.count = '3': expected a whole number"),
        ("rate", "fast", "Owner.rate = 'fast': expected a number or None"),
        ("shape", "sine", "Owner.shape = 'sine': expected one of 'linear', 'cosine'"),
        ("marks", 0.6, "Owner.marks = 0.6: expected a list of a number"),
        ("part", "KD", "Owner.part = 'KD': expected a reference to a component, such as @Name"),
        ("label", 3, "Owner.label = 3: expected a text in quotes"),
        ("quick", 1, "Owner.quick = 1: expected True or False"),
    ],
)
def test_a_value_of_another_type_is_reported_in_a_users_words(parameter, value, expected):
    with pytest.raises(ConfigError) as caught:
        check_types("Owner", Owner, {parameter: value})
    assert str(caught.value).startswith(expected)


def test_unannotated_and_unknown_parameters_are_left_to_the_constructor():
    check_types("Owner", Owner, {"free": object(), "more": object(), "count": 2})


def test_a_function_is_judged_by_its_own_annotations():
    def build(width: int) -> None: ...

    check_types("build", build, {"width": 4})
    with pytest.raises(ConfigError, match=r"build\.width = 4\.5: expected a whole number"):
        check_types("build", build, {"width": 4.5})


def test_annotations_of_any_form_are_judged_or_left_to_the_constructor():
    def build(
        bare: typing.List = (),  # noqa: UP006
        pair: tuple[str, int] = ("a", 1),
        many: tuple[int, ...] = (),
    ) -> None: ...

    check_types("build", build, {"bare": ["a", 1], "pair": ("a", 1), "many": [1, 2, 3]})
    for wrong in ({"pair": ("a", "b")}, {"pair": ("a",)}, {"pair": 3}):
        with pytest.raises(
            ConfigError, match="expected a tuple of a text in quotes, a whole number"
        ):
            check_types("build", build, wrong)
    with pytest.raises(ConfigError, match="expected a list$"):
        check_types("build", build, {"bare": 3})

    def unresolved(width: "OnlyForATypeChecker") -> None: ...  # noqa: F821

    check_types("unresolved", unresolved, {"width": 4})


def test_expect_names_binding_value_and_expectation():
    expect(True, "SGD", "lr", 0.1, "a number above 0")
    with pytest.raises(ConfigError) as caught:
        expect(False, "SGD", "lr", -0.1, "a number above 0")
    assert str(caught.value) == "SGD.lr = -0.1: expected a number above 0"


def test_a_config_error_is_a_users_and_a_value_error():
    assert issubclass(ConfigError, UserError)
    assert issubclass(ConfigError, ValueError)


@pytest.mark.parametrize(("value", "ordinary"), [(0.0, True), (-3, True), (1e308, True)])
def test_ordinary_numbers_are_finite(value, ordinary):
    assert finite(value) is ordinary


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_not(value):
    assert not finite(value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("epohcs", "; did you mean epochs?"),
        ("EPOCHS", "; did you mean epochs?"),
        ("mobilenetv2", "; did you mean MobileNetV2?"),
        ("zzz", ""),
    ],
)
def test_the_nearest_names_are_suggested_whatever_their_case(name, hint):
    assert suggest(name, ["epochs", "MobileNetV2", "seed"]) == hint


def test_several_near_names_are_joined_the_nearest_first():
    assert suggest("kd", ["dkd", "ctkd", "kd temperature=4"]) == "; did you mean kd temperature=4?"
    assert suggest("resnet", ["resnet20", "vgg8", "resnet8"]) == (
        "; did you mean resnet8 or resnet20?"
    )
