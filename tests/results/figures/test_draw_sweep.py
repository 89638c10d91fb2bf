"""The figures of a sweep, and an SVG for a page."""

import itertools
import re
import xml.etree.ElementTree as ET

import pytest

from ctkd.results.compare.sweep_table import SweepRun, sweep_cells
from ctkd.results.figures.draw_sweep import draw_axis, draw_temperatures, temperatures
from ctkd.results.figures.save import svg_text


@pytest.fixture
def cells(workdir):
    """KD, and CTKD with the ends 1, 5 and 100, two seeds each; of 100 no run is finished."""

    def make(name, labels, last, **choices):
        for seed in (0, 1):
            path = workdir(f"{name}-{seed}", seed=seed, last=last + seed, epochs=3, **choices)
            yield SweepRun(name, labels, seed, "finished", path, 3)

    runs = list(make("kd", {"method": "kd"}, 70.0, policy="constant"))
    for end, last in (("1", 71.0), ("5", 72.0)):
        runs += make(f"ctkd {end}", {"method": "ctkd", "end": end}, last)
    runs += make("ctkd 100", {"method": "ctkd", "end": "100"}, 73.0, finished=False)
    return sweep_cells(runs, {})


def points(figure):
    """The drawn point of each cell: index of the cell -> (x, y)."""
    found = {}
    for line in figure.axes[0].lines:
        if str(line.get_gid()).startswith("data-cell="):
            found[int(line.get_gid().partition("=")[2])] = tuple(map(float, line.get_xydata()[0]))
    return found


def test_an_axis_of_numbers_has_a_line_and_a_level_for_cells_without_a_value(cells):
    figure = draw_axis("end", cells)
    (axes,) = figure.axes
    assert points(figure) == {1: (1.0, 71.5), 2: (5.0, 72.5)}
    assert axes.get_xscale() == "log"  # the value of the cell that has not finished counts
    series = next(line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_alpha())
    assert series.get_ydata().tolist() == [71.5, 72.5]
    level = next(line for line in axes.lines if line.get_label() == "kd")
    assert set(level.get_ydata()) == {70.5}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "5", "100"]


def test_an_axis_of_texts_has_cells_with_the_same_text_side_by_side(cells):
    figure = draw_axis("method", cells)
    found = points(figure)
    assert found[0] == (0.0, 70.5)
    assert found[1][0] == pytest.approx(0.96)
    assert found[2][0] == pytest.approx(1.04)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["end=1", "end=5"]


def test_many_texts_are_listed_from_top_to_bottom(workdir):
    names = [f"a method with a long name, number {number}" for number in range(12)]
    path = workdir(last=70.0, epochs=3)
    runs = [SweepRun(name, {"method": name}, 0, "finished", path, 3) for name in names]
    figure = draw_axis("method", sweep_cells(runs, {}))
    (axes,) = figure.axes
    assert points(figure) == {number: (70.0, float(number)) for number in range(12)}
    assert [text.get_text() for text in axes.get_yticklabels()] == names
    assert axes.yaxis_inverted()
    assert axes.get_ylabel() == "method"
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.get_yticklabels()]
    assert all(above.y0 > below.y1 for above, below in itertools.pairwise(boxes))


def test_without_anything_to_show_there_is_no_figure(cells, workdir):
    assert draw_axis("method", cells[:1]) is None
    assert draw_axis("no such axis", cells) is None
    assert draw_axis("end", [cells[0], cells[3]]) is None  # one value, and it is not finished
    (cell,) = sweep_cells([SweepRun("v", {}, 0, "finished", workdir(policy=None), 3)], {})
    assert (draw_temperatures(cell), temperatures(cell)) == (None, [])


def test_temperatures_of_every_seed_on_one_axis_for_all_cells(cells):
    limits = [value for cell in cells for value in temperatures(cell)]
    assert (min(limits), max(limits)) == (1.0, 21.0)  # the bounds of CTKD
    figures = [draw_temperatures(cell, limits) for cell in cells]
    assert len({figure.axes[0].get_ylim() for figure in figures}) == 1
    seeds = [line for line in figures[1].axes[0].lines if line.get_alpha() == 0.75]
    assert len(seeds) == 2
    drawn = seeds[1].get_ydata().tolist()
    assert drawn == [row["temperature"] for row in cells[1].records[1].landscape]


def test_an_svg_for_a_page_is_whole_and_marks_the_cells(cells):
    text = svg_text(draw_axis("end", cells), "one")
    root = ET.fromstring(text)  # XML, so that it can be saved as a file too
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert set(re.findall(r'data-cell="(\d+)"', text)) == {"1", "2"}
    assert "<metadata>" not in text
    other = svg_text(draw_axis("end", cells), "two")
    ids = [set(re.findall(r'id="([^"]+)"', each)) for each in (text, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
