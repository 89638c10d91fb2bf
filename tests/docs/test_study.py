"""The pages of the studies: their tables say what the committed summaries of the runs say."""

import csv
import pathlib
import re
import statistics

import pytest

from ctkd.results.compare.contrasts import contrasts_table
from ctkd.results.compare.methods import compare
from ctkd.results.compare.standings import standings_table
from ctkd.results.compare.tables import FORMATS
from ctkd.results.read.summaries import read_summaries

ROOT = pathlib.Path(__file__).parents[2]
RUNS = ROOT / "docs" / "study" / "runs.csv"
PAGE = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows_of(markdown):
    """The cells of a table's lines."""
    return [re.split(r"\s*\|\s*", line)[1:-1] for line in markdown.splitlines() if line[:1] == "|"]


def spread(values, digits=2):
    """Mean ± standard deviation."""
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def bounded(star):
    """T* as text; the grid ends at 40."""
    return "≥ 40" if star > 39.99 else f"{star:.2f}"


@pytest.mark.parametrize("baseline", ["kd temperature=4", "kd temperature=2"])
def test_the_comparisons_are_those_of_the_command(baseline):
    result = compare(read_summaries(RUNS), "last", baseline)
    (pair,) = {row.pair for row in result.standings}
    made = FORMATS["markdown"](standings_table(result, pair))
    for row in rows_of(made):
        if not set("".join(row)) <= set("-: "):
            assert row in rows_of(PAGE), row


def test_the_temperatures_are_means_over_the_runs():
    runs = list(csv.DictReader(RUNS.open(encoding="utf-8")))
    title = ["method", "T, last epoch", "T*", "regret, %"]
    rows = rows_of(PAGE)
    table = rows[rows.index(title) + 2 :]
    for method, *row in table[: next((k for k, r in enumerate(table) if len(r) != 4), len(table))]:
        mine = [run for run in runs if run["cell"] == method]
        assert mine, method
        keys = {"temperature": 1, "t_star": 1, "regret": 100}
        for (key, scale), number in zip(keys.items(), row, strict=True):
            mean = scale * statistics.fmean(float(run[key]) for run in mine)
            assert float(number) == pytest.approx(mean, abs=0.006), (method, key)


def test_the_readme_has_the_same_numbers():
    table = [row for row in rows_of(PAGE) if len(row) > 6 and row[1].isdigit()]
    pages = {row[0]: [row[1], row[2], *row[5:7]] for row in reversed(table)}  # against T = 4
    rows = [row for row in rows_of(README) if row[0] in pages and row[1].isdigit()]
    assert len(rows) >= 8
    for method, *numbers in rows:
        assert [number.replace("−", "-") for number in numbers] == pages[method]


LANGUAGE = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "baseline", "methods"), [("language", "kd_T2", 8), ("vocabularies", "ce", 6)]
)
def test_the_language_studies_comparisons_are_those_of_the_command(name, baseline, methods):
    """Without the column of the networks, which are the same in all runs."""
    runs = read_summaries(ROOT / "docs" / "study" / f"{name}.csv")
    result = compare(runs, "last", baseline)
    made = [row[1:] for row in rows_of(FORMATS["markdown"](standings_table(result)))]
    page = rows_of(LANGUAGE)
    assert len(made) == 2 + methods
    assert [row for row in made if row not in page and set("".join(row)) - set("-: ")] == []


def test_the_language_studys_other_tables_are_those_of_the_runs():
    runs = list(csv.DictReader((ROOT / "docs" / "study" / "language.csv").open()))
    for row in rows_of(LANGUAGE):
        mine = [run for run in runs if run["cell"] == row[0]]
        if len(row) == 7 and mine and "±" in row[1]:
            kl = [float(run["test_kl"]) for run in mine]
            agreement = [float(run["test_agreement"]) for run in mine]
            assert (row[1], row[4]) == (spread(agreement), spread(kl, digits=3))
        elif len(row) == 4 and mine:
            assert row[1] == f"{statistics.fmean(float(run['temperature']) for run in mine):.2f}"
            stars = sorted(float(run["t_star"]) for run in mine)
            assert row[2] == ", ".join(bounded(star) for star in stars)


def test_the_language_studys_kinds_are_those_of_the_runs():
    kinds = list(csv.DictReader((ROOT / "docs" / "study" / "language_kinds.csv").open()))
    table = [row for row in rows_of(LANGUAGE) if len(row) == 5]
    for name, *stars, temperature in table[2:]:
        mine = [kind for kind in kinds if kind["class"] == name and kind["kind"] != "frequency"]
        for cell, star in zip(("kd_T4", "global_from_2", "token"), stars, strict=True):
            found = statistics.median(float(k["t_star"]) for k in mine if k["cell"] == cell)
            assert star == bounded(found), (name, cell)
        mean = statistics.fmean(float(k["temperature"]) for k in mine if k["cell"] == "token")
        assert temperature == f"{mean:.2f}"


SECOND = (ROOT / "docs" / "study2.md").read_text(encoding="utf-8")
CONTRASTS = [names.split(",") for names in re.findall(r'--contrasts "([^"]+)"', SECOND)]
SECOND_STUDY = pytest.mark.parametrize(
    ("title", "name", "contrasts"),
    [
        ("## Results: the digits", "study2_digits", CONTRASTS[0]),
        ("## Results: CIFAR-100", "study2_cifar100", CONTRASTS[1]),
    ],
)


def below(title):
    """The text below a title of the second study's page."""
    return SECOND.split(title + "\n")[1].split("\n## ")[0]


def section(title):
    """The rows of the tables below a title of the second study's page."""
    return rows_of(below(title))


@SECOND_STUDY
def test_the_second_studys_comparisons_are_those_of_the_command(title, name, contrasts):
    """Without McNemar's columns, which need each run's predictions."""
    runs = read_summaries(ROOT / "docs" / "study" / f"{name}.csv")
    made = rows_of(FORMATS["markdown"](contrasts_table(compare(runs, "last", "ctkd"), contrasts)))
    page = [row[:9] for row in section(title) if len(row) == 12]
    assert len(page) == 2 + len(contrasts)
    assert page[2:] == [row[:9] for row in made[2:]]


@SECOND_STUDY
def test_the_second_studys_temperatures_are_means_over_the_runs(title, name, contrasts):
    runs = list(csv.DictReader((ROOT / "docs" / "study" / f"{name}.csv").open()))
    table = {row[0]: row[1:] for row in section(title) if len(row) == 5 and "±" in row[1]}
    assert table.keys() == {run["cell"] for run in runs}
    for method, (accuracy, *numbers) in table.items():
        mine = [run for run in runs if run["cell"] == method]
        last = [float(run["last_top1"]) for run in mine]
        assert accuracy == spread(last)
        means = [statistics.fmean(float(run[k]) for run in mine) for k in ("temperature", "t_star")]
        regret = 100 * statistics.fmean(float(run["regret"]) for run in mine)
        shown = [f"{means[0]:.2f}", bounded(means[1]), f"{abs(round(regret, 2)):.2f}"]
        assert numbers == shown, method


@SECOND_STUDY
def test_the_intervals_in_the_second_studys_text_are_those_of_its_table(title, name, contrasts):
    prose = "\n".join(line for line in below(title).splitlines() if line[:1] != "|")
    found = re.findall(r"\[[+−][\d.]+,\s[+−][\d.]+\]", prose)
    table = {row[3] for row in section(title) if len(row) == 12}
    assert len(found) >= len(contrasts) - 3
    assert {re.sub(r"\s", " ", text).replace("−", "-") for text in found} <= table


def test_what_the_second_study_says_of_repeated_runs():
    first, second = (
        {
            (run["cell"], run["seed"]): float(run["last_top1"])
            for run in csv.DictReader((ROOT / "docs" / "study" / name).open())
        }
        for name in ("runs.csv", "study2_cifar100.csv")
    )
    apart = [second[run] - first[run] for run in first.keys() & second.keys()]
    mean = statistics.fmean(map(abs, apart))
    prose = " ".join(SECOND.split())
    assert f"Of these runs {len(apart)} repeat a run of the first study" in prose
    assert (
        f"differ by {mean:.2f} points on average and by up to {max(map(abs, apart)):.2f}" in prose
    )
    assert f"(mean {statistics.fmean(apart):+.2f})" in prose


LABORATORY = (ROOT / "docs" / "laboratory.md").read_text(encoding="utf-8")


def test_what_mistakes_cost_is_what_the_command_says():
    """Without McNemar's columns, which need each run's predictions."""
    contrasts = re.search(r'quirks.csv.* --contrasts "([^"]+)"', LABORATORY).group(1).split(",")
    runs = read_summaries(ROOT / "docs" / "study" / "quirks.csv")
    result = compare(runs, "last", "ctkd right")
    made = rows_of(FORMATS["markdown"](contrasts_table(result, contrasts)))
    page = [row for row in rows_of(LABORATORY) if len(row) == 9]
    assert len(page) == 2 + len(contrasts)
    assert page[2:] == [row[:9] for row in made[2:]]


def test_what_a_t_per_process_costs_is_what_the_command_says():
    runs = read_summaries(ROOT / "docs" / "study" / "quirk_ranks.csv")
    table = contrasts_table(compare(runs, "last", "right"), ["per process:right"])
    row = rows_of(FORMATS["markdown"](table))[2]
    assert f"accuracy {row[2]} {row[3]}, T {row[7]} {row[8]}." in LABORATORY
