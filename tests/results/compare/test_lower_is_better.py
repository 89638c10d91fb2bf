"""Bits per byte, of which lower is better: its digits, its best epoch and its words."""

import re

import pytest

from ctkd.results.compare.methods import compare
from ctkd.results.compare.standings import standings_table
from ctkd.results.compare.tables import to_markdown
from ctkd.results.figures.draw_curves import draw_curves
from ctkd.results.figures.draw_differences import draw_differences
from ctkd.results.read.runs import read_run


@pytest.fixture
def records(workdir):
    made = []
    for name, shift in (("kd", 0.0), ("ctkd", -0.0312)):
        for seed in range(3):
            last = 2.5 + 0.01 * seed + shift * (1 + 0.1 * seed)
            own = {"primary": "test_bits_per_byte", "lower_is_better": True}
            own |= {"last_bits_per_byte": last, "best_bits_per_byte": last - 0.004}
            path = workdir(f"{name}{seed}", name=name, seed=seed, summary=own)
            made.append(read_run(path))
    return made


def test_tables_show_four_digits_and_say_that_lower_is_better(records):
    text = to_markdown(standings_table(compare(records, baseline="kd")))
    assert "2.5100 ± 0.0100" in text
    assert "-0.0343" in text
    assert "Lower is better" in text
    assert "0.0040 bits per byte below the last epoch" in text
    assert "below 0 is better" in text
    assert not re.search(r"percent|points|accuracy", text)


def test_figures_too(records):
    axes = draw_differences(compare(records, baseline="kd")).axes[0]
    assert "below 0 is better" in axes.get_xlabel()


def test_the_best_epoch_of_a_curve_is_its_lowest(workdir):
    path = workdir("run", summary={"primary": "test_bits_per_byte", "lower_is_better": True})
    record = read_run(path)
    for number, row in enumerate(record.metrics):
        row.more["test_bits_per_byte"] = abs(number - 4) + 1.0
    labels = [text.get_text() for text in draw_curves(record).axes[0].get_legend().get_texts()]
    assert "Best 1.0000 (epoch 5)" in labels
