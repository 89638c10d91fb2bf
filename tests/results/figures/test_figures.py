import json
import re
import threading

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

from ctkd.errors import DataError
from ctkd.results.figures import style
from ctkd.results.figures.draw_landscape import normalized_losses
from ctkd.results.figures.save import draw_curves, draw_landscape, save_figures
from ctkd.results.read.runs import pick, read_run

OKABE_ITO = {
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
}  # fmt: skip


def line(axes, label):
    """The one line whose label begins so."""
    found = [each for each in axes.lines if str(each.get_label()).startswith(label)]
    assert len(found) == 1, [each.get_label() for each in axes.lines]
    return found[0]


def field(figure):
    """The panel with the colored field, and the field."""
    from matplotlib.collections import QuadMesh

    for axes in figure.axes:
        for mesh in axes.collections:
            if isinstance(mesh, QuadMesh) and axes.get_label() != "<colorbar>":
                return axes, mesh
    raise AssertionError("no field")


def test_the_landscape_shows_what_the_run_recorded(workdir):
    run = read_run(workdir(epochs=8))
    figure = draw_landscape(run)
    axes, mesh = field(figure)
    for label, key in (("Policy", "temperature"), ("$T^{*", "t_star")):
        drawn = np.array(line(axes, label).get_xydata()).T
        np.testing.assert_array_equal(drawn, pick(run.landscape, key))
    assert axes.get_yscale() == "log"
    assert mesh.get_cmap().name == "cividis"
    values = mesh.get_array()
    assert values.shape[1] == len(run.landscape)
    assert values.max() == pytest.approx(1.0)
    assert not np.ma.is_masked(values)
    lower = line(axes, "Bounds of")
    upper = axes.lines[axes.lines.index(lower) + 2]  # under each a light line
    assert [lower.get_ydata()[0], upper.get_ydata()[0]] == [1.0, 21.0]


def test_the_brightest_cell_of_each_epoch_is_at_its_maximizer(workdir):
    run = read_run(workdir(epochs=8))
    _, mesh = field(draw_landscape(run))
    temperatures = np.sqrt(mesh.get_coordinates()[1:, 0, 1] * mesh.get_coordinates()[:-1, 0, 1])
    for column, row in enumerate(run.landscape):
        brightest = temperatures[mesh.get_array()[:, column].argmax()]
        assert brightest == pytest.approx(row["t_star"], rel=0.04)  # half a step of the grid


def test_the_regret_lines_enclose_the_maximizer_closely(workdir):
    run = read_run(workdir(epochs=8))
    axes, _ = field(draw_landscape(run))
    low = line(axes, "1 % regret")
    high = axes.lines[axes.lines.index(low) + 1]
    stars = np.array([row["t_star"] for row in run.landscape])
    assert (low.get_ydata() <= stars).all()
    assert (high.get_ydata() >= stars).all()
    assert (high.get_ydata() / low.get_ydata() < 1.5).all()


def test_the_plunge_is_drawn_step_by_step(workdir):
    run = read_run(workdir())
    plunge = draw_landscape(run).axes[0]
    drawn = line(plunge, "$T$")
    np.testing.assert_array_equal(drawn.get_xdata(), run.trace["epoch"])
    np.testing.assert_array_equal(drawn.get_ydata(), run.trace["temperature"])
    assert drawn.get_ydata()[0] > 15
    assert "Range of rows" not in plunge.get_legend_handles_labels()[1]


def test_without_a_trace_the_landscape_stands_alone(workdir):
    folder = workdir()
    (folder / "temperature.csv").unlink()
    figure = draw_landscape(read_run(folder))
    assert len(figure.axes) == 2  # the field and its color bar
    assert figure.axes[0].get_ylabel() == "Temperature $T$"


def test_a_policy_per_row_shows_its_spread(workdir):
    run = read_run(workdir(policy="instance"))
    figure = draw_landscape(run)
    axes, _ = field(figure)
    labels = axes.get_legend_handles_labels()[1]
    assert {"5–95 % of rows", "25–75 % of rows", "Bounds of $T$"} <= set(labels)
    assert "Range of rows" in figure.axes[0].get_legend_handles_labels()[1]
    curves = draw_curves(run).axes
    assert "5–95 % of rows" in curves[3].get_legend_handles_labels()[1]
    unbounded, _ = field(draw_landscape(read_run(workdir("kd", policy="constant"))))
    assert not {"5–95 % of rows", "Bounds of $T$"} & set(unbounded.get_legend_handles_labels()[1])


def test_where_lambda_is_full_is_marked(workdir):
    axes, _ = field(draw_landscape(read_run(workdir(epochs=12))))
    assert [text.get_text() for text in axes.texts] == [r"$\lambda=1$"]
    for path, choices in (("kd", {"policy": "constant"}), ("short", {"epochs": 1})):
        axes, _ = field(draw_landscape(read_run(workdir(path, **choices))))
        assert not axes.texts


def test_a_temperature_held_at_its_bound_is_inside_the_panel(workdir):
    folder = workdir()
    rows = [json.loads(text) for text in (folder / "landscape.jsonl").read_text().splitlines()]
    for row in rows:
        row["temperature"] = 21 - 1e-9
    (folder / "landscape.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    axes, _ = field(draw_landscape(read_run(folder)))
    assert axes.get_ylim()[0] < 1 < 21 < axes.get_ylim()[1]


def test_a_t_star_at_the_end_of_the_grid_is_drawn_as_a_bound(workdir):
    folder = workdir(epochs=3)
    rows = [json.loads(text) for text in (folder / "landscape.jsonl").read_text().splitlines()]
    rows[-1]["t_star"] = rows[-1]["temperatures"][-1]
    (folder / "landscape.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    axes, _ = field(draw_landscape(read_run(folder)))
    hollow = line(axes, r"$T^{*} \geq 21$")
    assert hollow.get_xdata().tolist() == [3.0]
    assert hollow.get_markerfacecolor() == "white"


def test_a_run_without_a_landscape_cannot_be_drawn(workdir):
    with pytest.raises(DataError, match="no landscape to draw"):
        draw_landscape(read_run(workdir(policy=None)))


def test_losses_are_divided_by_each_epochs_maximum():
    rows = [
        {"epoch": 0, "temperatures": [1, 2, 4], "losses": [1, 4, 2]},
        {"epoch": 1, "temperatures": [1, 4], "losses": [2, 8]},  # log 2 is half-way to log 4
        {"epoch": 2, "temperatures": [2, 4], "losses": [3, 6]},
        {"epoch": 3, "temperatures": [1, 2, 4], "losses": [None, 5, float("inf")]},
        {"epoch": 4, "temperatures": [1, 2, 4], "losses": [0, 0, 0]},
    ]
    epochs, grid, table = normalized_losses(rows)
    assert (epochs.tolist(), grid.tolist()) == ([0, 1, 2, 3, 4], [1, 2, 4])
    nan = np.nan
    expected = [[0.25, 1, 0.5], [0.25, 0.625, 1], [nan, 0.5, 1], [nan, 1, nan], [nan, nan, nan]]
    np.testing.assert_allclose(table, expected)


def test_the_curves_show_what_the_run_recorded(workdir):
    run = read_run(workdir(epochs=8, validation=True))
    accuracy, losses, schedules, temperature, strength = draw_curves(run).axes
    for axes, label, key in (
        (accuracy, "Test", "test_top1"),
        (accuracy, "Validation", "validation_top1"),
        (losses, "Training", "train_loss"),
        (losses, "CE", "train_ce"),
        (losses, "KD", "train_kd"),
        (schedules, "Learning", "lr"),
        (strength, "Reversal", "lambda"),
        (temperature, "Mean", "temperature"),
    ):
        drawn = np.array(line(axes, label).get_xydata()).T
        np.testing.assert_array_equal(drawn, run.series(key), label)
    assert line(accuracy, "Teacher 72.63").get_ydata()[0] == 72.63
    assert line(accuracy, "Best").get_ydata()[0] == run.series("test_top1")[1].max()


def test_lines_differ_in_color_and_in_style(workdir):
    terms = {"ce": 1.0, "tckd": 0.02, "nckd": 9.0, "dist": 0.5}
    figure = draw_curves(read_run(workdir(terms=terms, validation=True)))
    losses = figure.axes[1]
    assert losses.get_yscale() == "log"
    for axes in figure.axes:
        shown = [each for each in axes.lines if not str(each.get_label()).startswith("_")]
        colors = {to_hex(each.get_color()) for each in shown}
        assert colors <= OKABE_ITO | {"#777777"}
        assert len({(to_hex(each.get_color()), each.get_marker()) for each in shown}) == len(shown)
    assert len({str(dashes) for _, dashes in style.CYCLE}) == len(style.CYCLE)


@pytest.mark.parametrize("policy", [None, "constant"])
def test_runs_without_an_adversary_have_no_lambda(workdir, policy):
    figure = draw_curves(read_run(workdir(policy=policy, terms={"ce": 1.0})))
    assert len(figure.axes) == (3 if policy is None else 4)
    assert [each.get_label() for each in figure.axes[1].lines] == ["Training", "Test (CE)"]
    assert "teacher" not in str(figure.axes[0].get_legend_handles_labels()[1]) or policy


def test_files_are_whole_png_and_pdf_with_real_fonts(workdir, tmp_path):
    run = read_run(workdir())
    before = matplotlib.rcParams["pdf.fonttype"]
    written = save_figures(run, tmp_path / "new" / "folder")
    names = ["landscape.png", "landscape.pdf", "curves.png", "curves.pdf"]
    assert [path.name for path in written] == names
    assert sorted((tmp_path / "new" / "folder").iterdir()) == sorted(written)
    for path in written:
        content = path.read_bytes()
        if path.suffix == ".png":
            assert content.startswith(b"\x89PNG\r\n")
            assert content.endswith(b"IEND\xaeB`\x82")
            assert int.from_bytes(content[16:20]) == 1400  # 7 inches at 200 dots
        else:
            assert content.startswith(b"%PDF")
            assert content.rstrip().endswith(b"%%EOF")
            assert b"/Type3" not in content
            assert re.search(rb"/Subtype /(CIDFontType2|TrueType)", content)
    assert matplotlib.rcParams["pdf.fonttype"] == before


def test_the_same_run_gives_the_same_files(workdir, tmp_path):
    run = read_run(workdir(epochs=2, policy=None))
    first = [path.read_bytes() for path in save_figures(run, tmp_path / "a")]
    assert first == [path.read_bytes() for path in save_figures(run, tmp_path / "b")]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("choices", "stems"),
    [
        ({"epochs": 1}, {"landscape", "curves"}),
        ({"epochs": 1, "policy": "instance"}, {"landscape", "curves"}),
        ({"policy": None}, {"curves"}),
        ({"policy": "constant", "finished": False, "every": 4}, {"landscape", "curves"}),
    ],
)
def test_short_plain_and_interrupted_runs(workdir, tmp_path, choices, stems):
    written = save_figures(read_run(workdir(**choices)), tmp_path)
    assert {path.stem for path in written} == stems


@pytest.mark.filterwarnings("error")
def test_a_run_stopped_in_its_first_epoch(workdir, tmp_path):
    folder = workdir(finished=False, policy="instance")
    (folder / "metrics.jsonl").write_text("")
    first = (folder / "landscape.jsonl").read_text().splitlines()[0]
    (folder / "landscape.jsonl").write_text(first + "\n")
    assert {path.stem for path in save_figures(read_run(folder), tmp_path)} == {"landscape"}
    (folder / "landscape.jsonl").unlink()
    assert save_figures(read_run(folder), tmp_path) == []


def test_a_failed_save_leaves_the_old_file_and_no_rest(workdir, tmp_path, monkeypatch):
    run = read_run(workdir(epochs=1, policy=None))
    old = save_figures(run, tmp_path / "out")[0]
    content = old.read_bytes()

    def full(figure, path, **choices):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(OSError, match="No space left"):
        save_figures(run, tmp_path / "out")
    assert old.read_bytes() == content
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_threads_may_draw_at_once_and_pyplot_is_not_needed(workdir, tmp_path):
    run = read_run(workdir(epochs=1, policy=None))
    threads = [
        threading.Thread(target=save_figures, args=(run, tmp_path / str(index)))
        for index in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.glob("[0-2]/curves.pdf"))) == 3
