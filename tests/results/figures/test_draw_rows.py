"""The rows of a policy with one T per row: read with care, drawn, correlated by rank."""

import numpy as np
import pytest

from ctkd.errors import DataError
from ctkd.results.figures.draw_rows import rank_correlation
from ctkd.results.figures.save import draw_rows, save_figures
from ctkd.results.read.runs import RunRecord
from ctkd.results.read.schema import RunSettings
from ctkd.results.read.work_files import read_columns

HEADER = "group,target,temperature,student_ce,teacher_confidence,teacher_target"


def write(path, count=60, header=HEADER):
    random = np.random.default_rng(0)
    lines = [header]
    for row in range(count):
        group = ("background", "foreground")[row % 4 == 0]
        target = "background" if group == "background" else ("cat", "dog")[row % 8 == 0]
        numbers = random.uniform(0.1, 1, 4)
        lines.append(f"{group},{target}," + ",".join(f"{n:.4g}" for n in 1 + numbers))
    path.write_text("\n".join(lines) + "\n")
    return path


def record(path, rows):
    return RunRecord(path, "ctkd_instance", RunSettings(), rows=rows)


def test_damage_is_named_by_line(tmp_path):
    path = write(tmp_path / "rows.csv", 3)
    path.write_text(path.read_text().replace("foreground,dog,", "foreground,dog,x"))
    with pytest.raises(DataError, match="rows.csv, line 2"):
        read_columns(path)
    path.write_bytes(path.read_bytes().replace(b"dog,x", b"dog,\xff"))
    with pytest.raises(DataError, match="rows.csv, line 2"):
        read_columns(path)
    write(path, 3, header="a,b")
    with pytest.raises(DataError, match="line 1: expected the columns group,target"):
        read_columns(path)


def test_rank_correlation():
    x = np.array([1.0, 1.0, 2.0, 5.0])  # with a tie: ranks 1.5, 1.5, 3, 4
    assert rank_correlation(x, np.exp(x)) == pytest.approx(1)
    assert rank_correlation(x, -x) == pytest.approx(-1)
    assert rank_correlation(x, np.array([1.0, 2.0, 4.0, 3.0])) == pytest.approx(3.5 / 22.5**0.5)
    assert np.isnan(rank_correlation(x, np.ones(4)))


def test_the_figure_shows_groups_classes_and_difficulty(tmp_path):
    figure = draw_rows(record(tmp_path, read_columns(write(tmp_path / "rows.csv"))))
    by_group, by_loss, by_confidence = figure.axes
    labels = [label.get_text() for label in by_group.get_xticklabels()]
    assert labels == ["background (45)", "foreground (15)", "dog (8)", "cat (7)"]
    assert "cross-entropy" in by_loss.get_xlabel()
    assert "confidence" in by_confidence.get_xlabel()
    assert len(by_loss.lines) == 3  # two groups and the median
    assert r"Spearman's $\rho$ = " in by_loss.get_xlabel()


def test_the_axis_of_confidence_spreads_values_close_to_1(tmp_path):
    rows = read_columns(write(tmp_path / "rows.csv"))
    rows["teacher_confidence"] = np.linspace(0.5, 1, 60)
    axes = draw_rows(record(tmp_path, rows)).axes[2]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[:4] == ["0.5", "0.9", "0.99", "0.999"]
    positions = axes.transData.transform([(1 - float(x), 5.0) for x in labels[:4]])[:, 0]
    assert (np.diff(positions) > 0).all()  # to the right the teacher is more confident


def test_it_is_saved_where_there_are_rows_and_refused_where_there_are_none(tmp_path):
    rows = read_columns(write(tmp_path / "rows.csv"))
    names = [path.name for path in save_figures(record(tmp_path, rows), tmp_path)]
    assert names == ["rows.png", "rows.pdf"]
    assert save_figures(record(tmp_path, {}), tmp_path) == []
    with pytest.raises(DataError, match="only a policy with one T per row has them"):
        draw_rows(record(tmp_path, {}))
