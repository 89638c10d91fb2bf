import pytest
from matplotlib.colors import to_hex

from ctkd.errors import ConfigError
from ctkd.results.compare.methods import compare
from ctkd.results.figures.draw_differences import draw_differences
from ctkd.results.read.runs import RunRecord
from ctkd.results.read.schema import RunSettings, RunSummary


def run(tmp_path, name, seed, last, student="resnet8"):
    summary = RunSummary(finished=True, student=student, teacher="resnet56", dataset="cifar100",
                         seed=seed, last=last, best=last)  # fmt: skip
    return RunRecord(tmp_path / f"{name}-{seed}", name, RunSettings(), summary=summary)


@pytest.fixture
def records(tmp_path):
    """Differences to kd: ctkd −1, 0, +1; dkd +2, +2.1, +1.9; vanilla, of two seeds, −1, −4."""
    values = {
        "kd": (40, 41, 42),
        "ctkd": (39, 41, 43),
        "dkd": (42, 43.1, 43.9),
        "vanilla": (39, 37),
    }
    return [
        run(tmp_path, name, seed, last)
        for name, lasts in values.items()
        for seed, last in enumerate(lasts)
    ]


def lines(axes, marker):
    return {
        (round(float(x), 6), to_hex(each.get_color()))
        for each in axes.lines
        if each.get_marker() == marker
        for x in each.get_xdata()
    }


def test_a_row_shows_mean_interval_and_seeds_and_zero_outside_is_marked(records):
    result = compare(records, "last", "kd")
    (axes,) = draw_differences(result).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["vanilla (2)", "ctkd (3)", "dkd (3)"]  # upwards
    assert lines(axes, "D") == {(2.0, "#d55e00")}
    assert lines(axes, "o") == {(0.0, "#0072b2"), (-2.5, "#0072b2")}
    seeds = {x for x, _ in lines(axes, ".")}
    assert seeds == {-1.0, 0.0, 1.0, 2.0, 2.1, 1.9, -4.0}
    by_method = {row.method: row.against.interval for row in result.standings if row.against}
    drawn = [tuple(each.get_xdata()) for each in axes.lines if len(each.get_xdata()) == 2]
    assert by_method["dkd"] in drawn
    assert by_method["ctkd"] in drawn
    assert "last epoch's test accuracy" in axes.get_xlabel()


def test_an_interval_of_two_seeds_does_not_set_the_scale(records):
    (axes,) = draw_differences(compare(records, "last", "kd")).axes
    low, high = axes.get_xlim()  # the interval is −2.5 ± 19
    assert -6 < low < -4
    assert 2.4 < high < 4
    assert {x for x, _ in lines(axes, "<")} == {round(low, 6)}
    assert {x for x, _ in lines(axes, ">")} == {round(high, 6)}


def test_pairs_have_a_panel_each_with_one_scale(records, tmp_path):
    others = [run(tmp_path / "b", n, s, 50 + s, "resnet20") for n in ("kd", "ctkd") for s in (0, 1)]
    first, second = draw_differences(compare([*records, *others], "last", "kd")).axes
    assert [first.get_title("left"), second.get_title("left")] == [
        "resnet56 → resnet20",
        "resnet56 → resnet8",
    ]
    assert first.get_xlim() == second.get_xlim()


def test_without_differences_there_is_no_figure(records):
    with pytest.raises(ConfigError, match="no baseline was given"):
        draw_differences(compare(records))
    alone = [record for record in records if record.name == "kd"]
    with pytest.raises(ConfigError, match="no method shares a seed with the baseline kd"):
        draw_differences(compare(alone, "last", "kd"))
