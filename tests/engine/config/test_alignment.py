"""What two vocabularies need, and what cannot be used with them, is said before data are read."""

import pytest

from ctkd.engine.job import Job
from ctkd.errors import ConfigError

LEARNED = ("Method.policy = @GlobalTemperature", "Method.schedule = @CosineLambda")
MISTAKES = [
    ("shared_columns", ["Method.transform = None"], "nothing compares the two: set Method.trans"),
    ("uld", ["SortedColumns.padded = True", *LEARNED], "grows with T without limit"),
    ("shared_columns", ["Language.block = 64"], "Language.block = 64: two vocabularies need None"),
    ("alm", ["Method.transform = @PrefixBytes"], "ALM compares chunks of text"),
    (
        "shared_columns",
        ["Method.policy = @InstanceTemperature", LEARNED[1]],
        "InstanceTemperature is made for rows of one vocabulary",
    ),
    ("shared_columns", ["Alignment.tokenizer = None"], "Alignment.tokenizer = None: expected"),
    ("kd", ["Method.objective = @ALM"], "ALM compares chunks of text that two tokenizers"),
    ("kd", ["TeacherRows.shuffled = True"], "is a control for two vocabularies"),
    ("shared_columns", ["Method.objective = @DKD"], "DKD reads the column of the target, and Sh"),
    ("uld", ["Method.objective = @NKD"], "NKD reads the column of the target, and SortedColumns"),
    ("uld", ["Method.objective = @KD", "SortedColumns.padded = True"], "its loss is infinite"),
    ("prefix_bytes", ["Teacher.rows = 'sampled'"], "'sampled' needs one vocabulary"),
]
ALLOWED = [
    ("prefix_bytes", "Method.objective = @DKD"),  # a byte's column has the number of the byte
    ("prefix_bytes", "Teacher.rows = 'hidden16'"),
    ("uld", "SortedColumns.padded = True"),
]


def built(method, *bindings):
    plain = ["python_topics.tokenizer = 'bytes'", "Alignment.tokenizer = 'bytes'"]
    plain = plain[:1] if method == "kd" else plain
    return Job([f"gin/language/{method}.gin"], [*plain, *bindings]).build(meta=True)


@pytest.mark.parametrize(("method", "bindings", "message"), MISTAKES)
def test_a_mistake_is_refused(method, bindings, message):
    with pytest.raises(ConfigError, match=message):
        built(method, *bindings)


@pytest.mark.parametrize(("method", "binding"), ALLOWED)
def test_what_fits_is_built(method, binding):
    built(method, binding)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("Method.transform = @SharedColumns", "SharedColumns compares vocabularies of text"),
        ("Alignment.tokenizer = 'bytes'", "Alignment is for text"),
        ("Method.objective = @ALM", "ALM compares chunks of text that two tokenizers cut"),
    ],
)
def test_images_have_no_vocabulary(binding, message):
    with pytest.raises(ConfigError, match=message):
        Job(["gin/digits/kd.gin"], [binding]).build(meta=True)


def test_the_control_is_a_method_and_the_tokenizer_a_part_of_the_recipe():
    run = built("prefix_bytes", "TeacherRows.shuffled = True")
    assert run.settings["method"]["TeacherRows.shuffled"] is True
    assert run.settings["recipe"]["Alignment.tokenizer"] == "bytes"
    plain = Job(["gin/language/kd.gin"], []).build(meta=True)
    names = [*plain.settings["method"], *plain.settings["recipe"]]
    assert not any(name.startswith(("Alignment", "TeacherRows")) for name in names)
