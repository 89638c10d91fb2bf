"""docs/study.md: its tables say what the runs' summaries beside it say."""

import csv
import pathlib
import re
import statistics

import pytest

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
