"""Gin files into Gin's state: precedence, search paths, and the errors for mistakes."""

import pathlib
import re

import gin
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ctkd.engine.config.build  # noqa: F401 - its parts are what the files bind
from ctkd.engine.config import parse as config
from ctkd.engine.config.gin_files import ROOT
from ctkd.errors import ConfigError

KD = (ROOT / "gin/digits/kd.gin").read_text()


@pytest.fixture
def gin_file(tmp_path, monkeypatch):
    """Writes a Gin file into the working directory; returns its name."""
    monkeypatch.chdir(tmp_path)

    def call(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    return call


def parsed(parameter):
    return gin.query_parameter(parameter)


def refused(files, bindings=()):
    with pytest.raises(ConfigError) as caught:
        config.parse(files, bindings)
    return str(caught.value)


def test_later_files_win_over_earlier_ones_and_bindings_over_all(gin_file):
    first = gin_file("a.gin", "include 'gin/digits/kd.gin'\nepochs = 5\nSGD.lr = 0.1\n")
    second = gin_file("b.gin", "SGD.lr = 0.2\nKD.ce_weight = 0.5\n")
    config.parse([first, second], ["KD.ce_weight = 0.25"])
    assert config.macros(["epochs"]) == {"epochs": 5}
    assert parsed("SGD.lr") == 0.2
    assert parsed("KD.ce_weight") == 0.25
    assert parsed("KD.kd_weight") == 0.9  # of the included file
    config.parse([second, first], ["KD.ce_weight = 0.25", "KD.ce_weight = 0.75"])
    assert parsed("SGD.lr") == 0.1
    assert parsed("KD.ce_weight") == 0.75


def test_nothing_is_left_of_an_earlier_configuration(gin_file):
    config.parse(["gin/digits/ctkd.gin"], ["SGD.lr = 0.7"])
    config.parse(["gin/digits/vanilla.gin"], [])
    assert parsed("SGD.lr") != 0.7
    with pytest.raises(ValueError, match="schedule"):
        parsed("Method.schedule")


def test_the_same_file_may_be_included_twice(gin_file):
    name = gin_file("a.gin", "include 'gin/base.gin'\ninclude 'gin/digits/kd.gin'\n")
    config.parse([name, "gin/base.gin"], [])
    assert parsed("KD.kd_weight") == 0.9


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("SGD.lrr = 0.1", r"SGD has no parameter 'lrr'; did you mean lr\?"),
        ("SDG.lr = 0.1", r"nothing is named 'SDG'; did you mean SGD"),
        (
            "Method.policy = @GlobalTemprature",
            r"GlobalTemprature'?; did you mean GlobalTemperature",
        ),
        ("student = @digits_studnet", r"did you mean digits_student"),
        ("SGD.lr = %leraning_rate", r"the macro %leraning_rate is used but never set"),
        ("SGD.lr = %epocs", r"the macro %epocs is used but never set; did you mean epochs\?"),
        ("epohcs = 2", r"nothing refers to the macro 'epohcs'; did you mean epochs\?"),
        ("SGD.lr = = 2", "syntax error"),
        ("SGD.lr = (1, 2", "syntax error"),
        ("SGD.lr = high", r"syntax error: a text needs quotes: --gin_param \"SGD.lr = 'high'\""),
        ("import no_such_package.losses", "No module named 'no_such_package'"),
        ("epochs", "syntax error"),
    ],
)
def test_mistakes_in_a_binding_are_reported_with_the_binding(gin_file, binding, expected):
    message = refused(["gin/digits/ctkd.gin"], [binding])
    assert re.search(expected, message), message
    if "macro" not in message:
        assert message.startswith(f"--gin_param {binding!r}: ")


def test_mistakes_in_a_file_are_reported_with_file_and_line(gin_file, tmp_path):
    name = gin_file("a.gin", "include 'gin/digits/kd.gin'\n\nSGD.lrr = 3\n")
    message = refused([name])
    assert message.startswith(f"{tmp_path / 'a.gin'}: ")
    assert "line 3" in message
    assert "SGD.lrr = 3" in message


def test_a_macro_of_the_command_line_must_be_referred_to(gin_file):
    """A file may set macros for several methods, as the files of pairs do."""
    name = gin_file("a.gin", "include 'gin/digits/kd.gin'\nmine = 3  # for %mine\n")
    config.parse([name], [])
    assert "nothing refers to the macro 'mine'" in refused([name], ["mine = 3"])


def test_macros_may_refer_to_macros(gin_file):
    name = gin_file("a.gin", "include 'gin/digits/kd.gin'\nshort = 2\nepochs = %short\n")
    config.parse([name], [])


def test_macros_gives_the_values_of_those_that_are_set(gin_file):
    config.parse(["gin/digits/kd.gin"], ["seed = 4"])
    assert config.macros(["seed", "data_dir", "steps_per_epoch"]) == {
        "seed": 4,
        "steps_per_epoch": None,
    }


def test_without_gin_config_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(config, "GIN_INSTALLED", False)
    assert refused(["gin/digits/kd.gin"]) == ("gin-config is not installed: pip install gin-config")


def test_the_roots_gin_files_are_found_beside_the_package():
    assert pathlib.Path(ROOT, "gin/base.gin").is_file()


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, len(KD)),
        st.integers(0, 8),
        st.sampled_from(
            ["", "=", "@", "%", "'", "(", ")", "\n", ".", "/", "#", ":", "3", "x", " "]
        ),
    ),
    min_size=1,
    max_size=4,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(MUTATIONS)
def test_whatever_stands_in_a_file_the_only_error_is_a_config_error(gin_file, mutations):
    text = KD
    for index, length, inserted in mutations:
        text = text[:index] + inserted + text[index + length :]
    try:
        config.parse([gin_file("fuzzed.gin", text)], [])
    except ConfigError as error:
        assert str(error)
