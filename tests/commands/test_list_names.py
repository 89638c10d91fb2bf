"""`ctkd list`: every registered name and every Gin file, each with a description."""

import re

import pytest

from ctkd.command_line import ROOT
from ctkd.commands.descriptions import describe
from ctkd.commands.gin_cards import files_with, gin_cards, method_cards
from ctkd.commands.list_names import main, page, sections
from ctkd.engine.config.settings import PARTS
from ctkd.registry import DATASETS, MODELS, OBJECTIVES, REGISTRIES, TEMPERATURES


def own(registry):
    """The names of ctkd itself: other tests register names of their own."""
    return [name for name in registry if registry.module_of(name).startswith("ctkd.")]


@pytest.fixture(scope="module")
def listed():
    """All that the list shows, as a whole and kind by kind."""
    return "\n".join([page(None), *map(page, sections())])


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_every_name_is_listed_with_a_description(registry, listed):
    for name in own(registry):
        assert re.search(rf"(?<!\w){name}(?!\w)", listed), name
        assert len(describe(registry, name)) > 10, name


def test_every_method_is_listed_and_found_by_its_name():
    assert {"kd", "ctkd", "dkd_ctkd", "vanilla"} <= method_cards().keys()
    assert not {"base", "sample", "teacher"} & method_cards().keys()
    for name, cards in method_cards().items():
        text = page(name)
        for card in cards:
            assert str(card.path) in text
        assert f"--gin_file=gin/{cards[0].folder}/{name}.gin" in text
    for card in gin_cards():
        assert card.summary, card.path
        assert (ROOT / card.path).is_file()


@pytest.mark.parametrize("name", ["gin/digits/ctkd.gin", "digits/ctkd"])
def test_a_gin_file_is_found_by_its_path(name):
    assert page(name).startswith("ctkd: gin/digits/ctkd.gin\n\n  digits, CTKD")


def test_a_kind_of_two_words_needs_no_quotes(capsys):
    assert main(["Data", "sets"]) == 0
    assert "cifar100" in capsys.readouterr().out


def test_the_list_fits_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, page(None).splitlines())) <= 80


def test_a_description_comes_from_the_docstring():
    assert describe(OBJECTIVES, "KD").startswith("ce_weight · CE + kd_weight")  # of its class
    assert describe(TEMPERATURES, "GlobalTemperature").startswith("One learned")  # of its module
    assert describe(DATASETS, "digits").startswith("scikit-learn's 1,797")


def test_a_name_is_shown_with_its_parameters_and_files():
    text = page("ConstantTemperature")
    assert "ConstantTemperature.temperature = 4.0  a number" in text
    assert "gin/digits/kd.gin" in text
    assert "Initialize self" not in page("KD")  # Python's own docstring of __init__
    assert "Recipe.epochs " in page("Recipe")
    assert "timm_resnet18: network" in page("timm_resnet18")
    assert "InstanceTemperature.num_classes" in page("InstanceTemperature")


def test_the_files_that_refer_to_a_name():
    assert "gin/cifar100/pairs/resnet32x4_resnet8x4.gin" in files_with("resnet8x4")
    of_resnet8 = files_with("resnet8")
    assert "gin/sweeps/study.gin" in of_resnet8
    assert not [file for file in of_resnet8 if "resnet8x4" in file]


def test_a_kind_shows_all_of_its_names():
    assert "wide_resnet50_2" in page("networks")
    assert "wide_resnet50_2" not in page(None)  # of a long group only the first ones
    assert len(list(PARTS)) == len(sections()["settings"])
    assert "resnet20" in MODELS


def test_an_unknown_name_is_an_error(capsys):
    assert main(["resnet8x5"]) == 2
    assert "nothing is named 'resnet8x5'; did you mean resnet8x4" in capsys.readouterr().err
