"""From a sweep's Gin file to its cells."""

import itertools

import pytest

from ctkd.errors import ConfigError
from ctkd.sweeps.study import read_study

KD, CTKD = "gin/digits/kd.gin", "gin/digits/ctkd.gin"


@pytest.fixture
def read(sweep_file):
    return lambda **settings: read_study(str(sweep_file(**settings)))


def values(study, *axes):
    """What each cell has on these axes, None where it lacks one."""
    return [
        tuple({c.axis: c.label for c in cell.choices}.get(axis) for axis in axes)
        for cell in study.cells
    ]


def test_a_grid_is_every_combination_with_every_seed(read):
    ends, lengths, seeds = [0.5, 1.0, 2.0], [5, 10], [0, 1]
    study = read(
        base=[CTKD],
        grid={"CosineLambda.end": ends, "CosineLambda.epochs": lengths},
        seeds=seeds,
    )
    assert len(study.cells) == 12
    cells = {(tuple(p for p in cell.params if "Lambda" in p), cell.seed) for cell in study.cells}
    assert cells == {
        ((f"CosineLambda.end = {end}", f"CosineLambda.epochs = {length}"), seed)
        for end, length, seed in itertools.product(ends, lengths, seeds)
    }
    assert len({cell.key for cell in study.cells}) == 12


def test_zipped_axes_walk_together_and_combine_with_the_grid(read):
    zipped = {"CosineLambda.end": [1.0, 2.0], "CosineLambda.epochs": [10, 20]}
    study = read(base=[CTKD], zipped=zipped, grid={"SGD.lr": [0.1, 0.2]})
    found = values(study, "SGD.lr", "CosineLambda.end", "CosineLambda.epochs")
    assert found == [("0.1", "1", "10"), ("0.1", "2", "20"), ("0.2", "1", "10"), ("0.2", "2", "20")]


def test_written_cells_need_not_have_the_same_axes(read):
    cells = [
        {"method": KD, "ConstantTemperature.temperature": 2.0},
        {"method": CTKD},
    ]
    study = read(cells=cells)
    assert values(study, "method", "ConstantTemperature.temperature") == [
        ("kd", "2"),
        ("ctkd", None),
    ]
    assert [
        cell.files[-1].endswith(file) for cell, file in zip(study.cells, (KD, CTKD), strict=True)
    ]


def test_alternatives_are_files_or_lists_of_files_and_bindings(read):
    methods = {"plain": KD, "gentle": [CTKD, "CosineLambda.end = 0.1"]}
    study = read(grid={"method": methods})
    gentle = study.cells[1]
    assert gentle.name == "gentle"
    assert gentle.files[0].endswith(CTKD)
    assert "CosineLambda.end = 0.1" in gentle.params


def test_files_come_in_order_and_the_command_lines_last(sweep_file):
    path = sweep_file(base=[KD], grid={"x": [CTKD]}, after=["gin/digits/dkd.gin"])
    study = read_study(str(path), ["gin/digits/dkd_ctkd.gin"], ["epochs = 2"])
    stems = [file.rsplit("/", 1)[1] for file in study.cells[0].files]
    assert stems == ["kd.gin", "ctkd.gin", "dkd.gin", "dkd_ctkd.gin"]
    assert study.cells[0].params[-1] == "epochs = 2"


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (True, "True"),
        (None, "None"),
        ("a b", "'a b'"),
        ([1, 2.5], "[1, 2.5]"),
        ((150, 180), "(150, 180,)"),
    ],
)
def test_a_value_is_spelled_as_a_gin_file_spells_it(read, value, spelled):
    study = read(base=[KD], grid={"SGD.milestones": [value]})
    assert f"SGD.milestones = {spelled}" in study.cells[0].params


def test_a_component_may_be_a_value(tmp_path):
    path = tmp_path / "s.gin"
    path.write_text(
        "Sweep.base = ['gin/digits/ctkd.gin']\n"
        "Sweep.grid = {'Method.policy': [@GlobalTemperature, @InstanceTemperature]}\n"
    )
    study = read_study(str(path))
    assert study.name == "s"
    assert [cell.name for cell in study.cells] == [
        "policy=@GlobalTemperature",
        "policy=@InstanceTemperature",
    ]


def test_skip_leaves_out_the_cells_that_have_all_of_its_values(read):
    study = read(
        base=[CTKD],
        grid={"CosineLambda.end": [0.0, 1.0], "CosineLambda.epochs": [10, 20, 40]},
        skip=[{"CosineLambda.end": 0.0, "CosineLambda.epochs": [20, 40]}],
    )
    assert values(study, "CosineLambda.end", "CosineLambda.epochs") == [
        ("0", "10"), ("1", "10"), ("1", "20"), ("1", "40"),
    ]  # fmt: skip


def test_only_drops_an_axis_from_the_cells_in_which_it_means_nothing(read):
    study = read(
        grid={"method": [KD, CTKD], "ConstantTemperature.temperature": [1.0, 2.0, 4.0]},
        only={"ConstantTemperature.temperature": {"method": "kd"}},
    )
    assert values(study, "method", "ConstantTemperature.temperature") == [
        ("kd", "1"), ("kd", "2"), ("kd", "4"), ("ctkd", None),
    ]  # fmt: skip


def test_a_runs_name_is_the_same_for_all_seeds_and_leaves_out_unnamed_axes(read):
    study = read(
        grid={"pair": {"a": [KD, "SGD.lr = 0.1"], "b": [KD, "SGD.lr = 0.2"]}},
        seeds=[0, 1],
        unnamed=["pair"],
    )
    assert {cell.name for cell in study.cells} == {"kd"}
    assert [cell.key for cell in study.cells] == ["a-seed0", "a-seed1", "b-seed0", "b-seed1"]
    assert all("Runtime.name = 'kd'" in cell.params for cell in study.cells)


def test_some_cells_have_further_seeds(read):
    study = read(
        base=[KD],
        grid={"SGD.lr": [0.1, 0.2, 0.3]},
        seeds=[0, 1],
        more_seeds=[({"SGD.lr": [0.1, 0.3]}, [5, 1]), ({"SGD.lr": 0.1}, [7])],
    )
    found = [(cell.choices[0].label, cell.seed) for cell in study.cells]
    everywhere = [(rate, seed) for rate in ("0.1", "0.2", "0.3") for seed in (0, 1)]
    assert found == [*everywhere, ("0.1", 5), ("0.1", 7), ("0.3", 5)]


def test_parameters_of_one_name_are_distinguished_by_their_components(read):
    study = read(base=[CTKD], grid={"CosineLambda.end": [1.0], "AnnealedTemperature.end": [2.0]})
    assert study.cells[0].name == "CosineLambda.end=1 AnnealedTemperature.end=2"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": {"CosineLambda.end": []}}, "Sweep.grid"),
        ({"seeds": []}, "Sweep.seeds = []"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"zipped": {"SGD.lr": [1, 2], "SGD.momentum": [1]}}, "as many values"),
        ({"grid": {"SGD.lr": [0.1, 0.1]}}, "0.1 twice"),
        ({"grid": {"SGD.lr": [1, 1.0]}}, "1 twice"),
        ({"cells": [{"SGD.lr": 0.1}, {"SGD.lr": 0.1}]}, "there twice"),
        ({"grid": {"SGD.lr": [1]}, "zipped": {"SGD.lr": [2]}}, "two of grid"),
        ({"grid": {"SGD.lr": [1]}, "skip": [{"SGD.lr": 2}]}, "is never 2 (it is 1)"),
        ({"grid": {"SGD.lr": [1]}, "skip": [{"SDG.lr": 1}]}, "did you mean SGD.lr?"),
        ({"grid": {"SGD.lr": [1]}, "skip": [{"SGD.lr": 1}]}, "removes every cell"),
        ({"grid": {"SGD.lr": [1]}, "only": {"SGD.x": {"SGD.lr": 1}}}, "no axis is named 'SGD.x'"),
        ({"grid": {"SGD.lr": [1]}, "baseline": {"method": "kd"}}, "Sweep.baseline"),
        ({"grid": {"SGD.lr": [1]}, "unnamed": ["pair"]}, "Sweep.unnamed"),
        ({"more_seeds": [({"SGD.lr": 1}, 3)]}, "pairs ({axis: value}"),
        ({"more_seeds": [({"SGD.lr": 1}, [-1])]}, "pairs ({axis: value}"),
        ({"grid": {"SGD.lr": [1]}, "more_seeds": [({"SGD.lr": 2}, [3])]}, "is never 2"),
        ({"grid": {"x": {"one": "nothing"}}}, "expected a Gin file"),
        ({"base": ["gin/digits/kdd.gin"]}, "did you mean gin/digits/kd.gin"),
        ({"base": [], "grid": {"SGD.lr": [1]}}, "set Sweep.base"),
        ({"grid": ["SGD.lr"]}, "a dictionary"),
    ],
)
def test_a_mistakes_message_says_how_to_correct_it(read, settings, message):
    with pytest.raises(ConfigError) as caught:
        read(**{"base": [KD], **settings})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("minutes", 5), ("cpus", 0), ("parallel", 0), ("mem_gb", -1.0), ("gpus", -1), ("nodes", 0)],
)
def test_resources_are_checked(sweep_file, name, value):
    path = sweep_file(base=[KD], resources={name: value})
    with pytest.raises(ConfigError, match=f"Resources.{name} = "):
        read_study(str(path))
