"""The cards of the CIFAR-100 files: they quote the published numbers and the right command."""

import itertools
import pathlib
import re

import pytest

from ctkd.results.compare.published import ALONE, PAIRS, lookup_all

FOLDER = pathlib.Path(__file__).parents[2] / "gin" / "cifar100"
METHODS = sorted(path.stem for path in FOLDER.glob("*.gin") if path.stem != "base")
NAMES = ["_".join(pair) for pair in PAIRS]
DEFAULT = ("resnet56", "resnet20")


def card(path):
    """The comment that a file opens with, as one line of words."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    return re.sub(r"\s+", " ", " ".join(line[1:] for line in lines))


@pytest.mark.parametrize("method", METHODS)
def test_method_cards_quote_the_published_numbers(method):
    text = card(FOLDER / f"{method}.gin")
    assert f"python -m ctkd.main --gin_file=gin/cifar100/{method}.gin" in text
    opening = " ".join((FOLDER / f"{method}.gin").read_text().splitlines()[:3])
    assert "data_dir" in opening
    assert ("teacher_weights" in opening) == (method not in ("vanilla", "teacher"))
    numbers = lookup_all(*DEFAULT, method)
    for published in numbers:
        assert f"{published.value:.2f}" in text
    if numbers and numbers[0].reports == "best":
        assert f"{numbers[0].value:.2f}, the best test epoch" in text
    if numbers and numbers[0].reports == "last":
        assert f"{numbers[0].value:.2f}, the last epoch" in text


def test_the_teachers_card_quotes_the_published_teachers():
    quoted = re.findall(r"(\w+) (\d\d\.\d\d)", card(FOLDER / "teacher.gin"))
    assert {name for name, _ in quoted} == {teacher for teacher, _ in PAIRS}
    assert all(ALONE[name] == float(value) for name, value in quoted)


@pytest.mark.parametrize(("name", "pair"), list(zip(NAMES, PAIRS, strict=True)))
def test_pair_cards_quote_the_published_numbers(name, pair):
    text = card(FOLDER / "pairs" / f"{name}.gin")
    teacher, student = pair
    assert f"--gin_file=gin/cifar100/pairs/{name}.gin" in text
    assert f"teacher {ALONE[teacher]:.2f}, student alone {ALONE[student]:.2f}" in text
    labels = {
        "kd": "KD",
        "ctkd": "CTKD",
        "dkd": "DKD",
        "dkd_ctkd": "DKD + CTKD",
        "standardized": "KD + LS",
        "ctkd_standardized": "CTKD + LS",
        "dkd_standardized": "DKD + LS",
    }
    if "LS's table" in text:
        check_card_of_ls(text, pair, labels)
        return
    last, _, best = text.partition("best test epoch: ")
    best, _, other = best.partition("mean of 5 runs")
    quoted = {("last", v) for v in re.findall(r"KD (\d\d\.\d\d)", last)}
    quoted |= {("best", v) for v in re.findall(r" (\d\d\.\d\d)", " " + best)}
    expected = set()
    for method, label in labels.items():
        for rank, number in enumerate(lookup_all(*pair, method)):
            value = f"{number.value:.2f}"
            expected.add((number.reports, value))
            part = last if number.reports == "last" else f" {best}"
            called = label if rank == 0 else "DKD run by CTKD's authors"
            assert f" {called} {value}" in part
    assert quoted == expected
    assert "DIST" in other
    assert "β" in text or pair == DEFAULT


def check_card_of_ls(text, pair, labels):
    """The card of a pair whose numbers are all from Logit Standardization's table."""
    unstated, _, best = text.partition("best test epoch: ")
    labels |= {"mlkd": "MLKD", "mlkd_standardized": "MLKD + LS"}
    for method, label in labels.items():
        for number in lookup_all(*pair, method):
            assert "Logit Standardization" in number.source
            assert f" {label} {number.value:.2f}" in (f" {best}" if number.reports else unstated)
