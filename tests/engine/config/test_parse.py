"""Gin files into Gin's state: what wins, what is found where, and how mistakes are told."""

import pathlib
import re

import gin
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ctkd.engine.config.build  # noqa: F401 - its parts are what the files bind
from ctkd.engine.config import parse as config
from ctkd.errors import ConfigError

KD = (config.ROOT / "gin/digits/kd.gin").read_text()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file into the working directory; its name."""
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


def test_later_files_win_over_earlier_ones_and_bindings_over_all(write):
    first = write("a.gin", "include 'gin/digits/kd.gin'\nepochs = 5\nSGD.lr = 0.1\n")
    second = write("b.gin", "SGD.lr = 0.2\nKD.ce_weight = 0.5\n")
    config.parse([first, second], ["KD.ce_weight = 0.25"])
    assert config.macros(["epochs"]) == {"epochs": 5}
    assert parsed("SGD.lr") == 0.2
    assert parsed("KD.ce_weight") == 0.25
    assert parsed("KD.kd_weight") == 0.9  # of the included file
    config.parse([second, first], ["KD.ce_weight = 0.25", "KD.ce_weight = 0.75"])
    assert parsed("SGD.lr") == 0.1
    assert parsed("KD.ce_weight") == 0.75


def test_nothing_is_left_of_an_earlier_configuration(write):
    config.parse(["gin/digits/ctkd.gin"], ["SGD.lr = 0.7"])
    config.parse(["gin/digits/vanilla.gin"], [])
    assert parsed("SGD.lr") != 0.7
    with pytest.raises(ValueError, match="schedule"):
        parsed("Method.schedule")


@pytest.mark.parametrize("name", ["gin/digits/kd.gin", "digits/kd.gin"])
def test_files_are_found_below_the_root_from_any_folder(write, name):
    assert config.find(name) == config.ROOT / "gin/digits/kd.gin"
    config.parse([name], [])
    assert parsed("KD.kd_weight") == 0.9


def test_a_file_of_the_working_directory_comes_first(write, tmp_path):
    write("gin/digits/kd.gin", "include 'gin/digits/vanilla.gin'\n")
    assert config.find("gin/digits/kd.gin") == tmp_path / "gin/digits/kd.gin"


def test_an_absolute_path(write, tmp_path):
    write("mine.gin", "include 'digits/vanilla.gin'\nSGD.lr = 0.3\n")
    config.parse([str(tmp_path / "mine.gin")], [])
    assert parsed("SGD.lr") == 0.3


def test_a_home_folder_that_no_shell_has_replaced(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("mine.gin", "include 'digits/vanilla.gin'\nSGD.lr = 0.3\n")
    config.parse(["~/mine.gin"], [])
    assert parsed("SGD.lr") == 0.3
    with pytest.raises(ConfigError, match="the Gin file '~nobody_of_that_name/mine.gin': there is"):
        config.parse(["~nobody_of_that_name/mine.gin"], [])


def test_the_same_file_may_be_included_twice(write):
    name = write("a.gin", "include 'gin/base.gin'\ninclude 'gin/digits/kd.gin'\n")
    config.parse([name, "gin/base.gin"], [])
    assert parsed("KD.kd_weight") == 0.9


def test_a_missing_file_is_answered_with_the_nearest(write):
    message = refused(["gin/digits/ctdk.gin"])
    assert message.startswith("no Gin file 'gin/digits/ctdk.gin' here")
    assert "did you mean gin/digits/ctkd.gin" in message


def test_a_missing_include_names_both_files(write):
    message = refused([write("a.gin", "include 'gin/digits/kdd.gin'\n")])
    assert "a.gin includes 'gin/digits/kdd.gin': no Gin file" in message
    assert "gin/digits/kd.gin" in message


def test_a_circular_include_shows_the_circle(write, tmp_path):
    write("a.gin", "include 'b.gin'\n")
    write("b.gin", "include 'c.gin'\n")
    write("c.gin", "include 'a.gin'\n")
    chain = " → ".join(str(tmp_path / f"{name}.gin") for name in "abca")
    assert refused(["a.gin"]) == f"circular include: {chain}"


def test_a_file_that_is_no_text_is_refused(write, tmp_path):
    (tmp_path / "a.gin").write_bytes(b"\xff\xfe\x00epochs")
    assert "a.gin cannot be read as a Gin file" in refused(["a.gin"])


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("SGD.lrr = 0.1", r"'SGD'.*'lrr'; did you mean lr\?"),
        ("SDG.lr = 0.1", r"No configurable matching 'SDG'; did you mean SGD\?"),
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
        ("SGD.lr = high", r"syntax error: line 1: 'high' is no value \(a text needs quotes"),
        ("import no_such_package.losses", "No module named 'no_such_package'"),
        ("epochs", "syntax error"),
    ],
)
def test_mistakes_in_a_binding_are_told_with_the_binding(write, binding, expected):
    message = refused(["gin/digits/ctkd.gin"], [binding])
    assert re.search(expected, message), message
    if "macro" not in message:
        assert message.startswith(f"--gin_param {binding!r}: ")


def test_mistakes_in_a_file_are_told_with_file_and_line(write, tmp_path):
    name = write("a.gin", "include 'gin/digits/kd.gin'\n\nSGD.lrr = 3\n")
    message = refused([name])
    assert message.startswith(f"{tmp_path / 'a.gin'}: ")
    assert "line 3" in message
    assert "SGD.lrr = 3" in message


def test_a_macro_that_is_only_mentioned_in_a_comment_has_no_effect(write):
    name = write("a.gin", "include 'gin/digits/kd.gin'\nmine = 3  # for %mine\n")
    assert "nothing refers to the macro 'mine'" in refused([name])


def test_macros_may_refer_to_macros(write):
    name = write("a.gin", "include 'gin/digits/kd.gin'\nshort = 2\nepochs = %short\n")
    config.parse([name], [])


def test_macros_gives_the_values_of_those_that_are_set(write):
    config.parse(["gin/digits/kd.gin"], ["seed = 4"])
    assert config.macros(["seed", "data_dir", "steps_per_epoch"]) == {
        "seed": 4,
        "steps_per_epoch": None,
    }


def test_without_gin_config_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(config, "GIN_INSTALLED", False)
    assert refused(["gin/digits/kd.gin"]) == ("gin-config is not installed: pip install gin-config")


def test_the_roots_gin_files_are_found_beside_the_package():
    assert pathlib.Path(config.ROOT, "gin/base.gin").is_file()


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
def test_whatever_stands_in_a_file_the_only_error_is_a_config_error(write, mutations):
    text = KD
    for place, length, inserted in mutations:
        text = text[:place] + inserted + text[place + length :]
    try:
        config.parse([write("fuzzed.gin", text)], [])
    except ConfigError as error:
        assert str(error)
