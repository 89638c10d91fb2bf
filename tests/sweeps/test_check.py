"""Every cell is built and checked before anything is sent."""

import pytest

from ctkd.engine.config.builder import KnownNetworks
from ctkd.errors import ConfigError
from ctkd.sweeps.check import cells_table, check, estimate, faults_of_plans
from ctkd.sweeps.study import read_study

KD, CTKD = "gin/digits/kd.gin", "gin/digits/ctkd.gin"


@pytest.fixture
def study(sweep_file):
    return lambda **settings: read_study(str(sweep_file(**settings)))


def test_a_misspelled_binding_in_the_ninth_cell_names_cell_and_line(study):
    methods = {f"m{n}": [CTKD, f"CosineLambda.end = {n}.0"] for n in range(1, 9)}
    methods["m9"] = [CTKD, "CosineLambda.ned = 9.0"]  # codespell:ignore
    made = study(grid={"method": methods})
    with pytest.raises(ConfigError) as caught:
        check(made)
    message = str(caught.value)
    assert message.startswith("cell 9 (method = m9, seed 0): ")
    assert "did you mean end?" in message
    line = line_of(made, "CosineLambda.ned = 9.0")  # codespell:ignore
    assert message.endswith(f"study.gin, line {line})")


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ("CosineLmbda.end", "did you mean CosineLambda"),
        ("CosineLambda.ned", "did you mean end?"),  # codespell:ignore
        ("epohcs", "did you mean epochs?"),
    ],
)
def test_an_unknown_axis_is_refused_with_its_line(study, axis, expected):
    made = study(base=[CTKD], grid={axis: [1, 2]})
    with pytest.raises(ConfigError) as caught:
        check(made)
    assert expected in str(caught.value)
    assert str(caught.value).endswith(f"study.gin, line {line_of(made, axis)})")


def line_of(study, axis):
    lines = study.path.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if f"'{axis}'" in line)


def test_a_binding_that_changes_nothing_is_a_mistake(study):
    made = study(base=[CTKD], grid={"ConstantTemperature.temperature": [1.0, 2.0]})
    with pytest.raises(ConfigError, match="changes nothing"):
        check(made)


def test_a_value_of_the_wrong_type_or_out_of_range_is_a_mistake(study):
    for axis, value in (("epochs", "'many'"), ("SGD.lr", -1.0)):
        with pytest.raises(ConfigError, match=axis.rpartition(".")[2]):
            check(study(base=[KD], grid={axis: [value]}))


def test_cells_that_would_train_the_same_are_refused(study):
    made = study(grid={"method": {"four": [KD, "ConstantTemperature.temperature = 4.0"], "kd": KD}})
    with pytest.raises(ConfigError) as caught:
        check(made)
    assert "cell 2 (method = kd, seed 0) would train the same as cell 1" in str(caught.value)


def test_cells_of_one_precision_each_are_not_the_same(study):
    assert len(check(study(base=[KD], grid={"precision": ["float32", "bfloat16"]}))) == 2


def test_a_missing_teacher_is_asked_for_only_where_it_is_needed(study):
    made = study(base=["gin/cifar100/kd.gin"], grid={"SGD.lr": [0.1]})
    assert check(made, supplies=False)[0].teacher == "resnet56"
    with pytest.raises(ConfigError, match="weights are not given"):
        check(made)


def test_a_mistake_in_what_trains_the_teacher_is_found_too(study, tmp_path):
    (tmp_path / "teacher.gin").write_text("include 'gin/digits/teacher.gin'\nSGD.lrr = 3\n")
    made = study(base=[KD], params=[f"Teacher.run = '{tmp_path / 'teacher.gin'}'"])
    with pytest.raises(ConfigError, match=r"its teacher, .*did you mean lr"):
        check(made)


def test_labels_that_make_one_folder_are_reported(study):
    made = study(base=[KD], grid={"method": {"A": ["SGD.lr = 0.1"], "a": ["SGD.lr = 0.2"]}})
    with pytest.raises(ConfigError, match="would share the folder"):
        check(made)


def test_the_table_has_a_row_for_all_seeds_of_a_cell(study):
    made = study(grid={"method": [KD, CTKD]}, seeds=[0, 1, 2, 3], params=["epochs = 5"])
    plans = check(made)
    assert cells_table(plans).rows == [
        ["kd", "digits_teacher → digits_student", "digits", "0 … 3", 5],
        ["ctkd", "digits_teacher → digits_student", "digits", "0 … 3", 5],
    ]
    text = estimate(made, plans, 2)
    assert "8 runs, 40 epochs in all; 2 at a time" in text
    assert "16.0 hours" in text  # four rounds of 240 minutes


@pytest.mark.slow
def test_many_cells_are_checked_with_each_network_built_once(study, monkeypatch):
    built = []
    real = KnownNetworks.get

    def get(self, settings, make):
        return real(self, settings, lambda: built.append(settings) or make())

    monkeypatch.setattr(KnownNetworks, "get", get)
    grid = {
        "CosineLambda.end": [n / 10 for n in range(1, 11)],
        "CosineLambda.epochs": list(range(1, 21)),
    }
    made = study(
        base=["gin/cifar100/ctkd.gin"],
        params=["teacher_weights = 'w.pth'"],
        grid=grid,
    )
    assert len(check(made)) == 200
    assert len(built) == 2  # ResNet-56 and ResNet-20


def test_a_warning_of_the_cells_is_counted_once(study):
    decay = {"SGD.policy_weight_decay": [0.0, 1e-3]}
    plans = check(study(base=[CTKD], grid=decay, seeds=[0, 1]))
    (fault,) = faults_of_plans(plans)
    assert fault.startswith("2 of 4 runs: SGD.policy_weight_decay = 0.001 pulls")
