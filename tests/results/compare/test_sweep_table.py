"""The runs of a sweep as one table: the baseline of each cell, and the notes."""

import pytest

from ctkd.results.compare.sweep_table import SweepRun, sweep_cells, sweep_table
from ctkd.results.compare.sweep_text import verdict


@pytest.fixture
def cells(workdir):
    """The cells of runs given as (name, labels, seed, accuracy, more choices of the run)."""

    def make(*given, baseline=None):
        runs = []
        for name, labels, seed, last, *more in given:
            choices = {"name": name, "seed": seed, "last": last, "epochs": 3, **(more or [{}])[0]}
            path = workdir(f"{name}-{seed}", **choices)
            state = "finished" if choices.get("finished", True) else "running"
            runs.append(SweepRun(name, labels, seed, state, path, 3))
        return sweep_cells(runs, baseline or {})

    return make


def test_mean_and_std_are_over_the_finished_seeds(cells):
    (cell,) = cells(
        ("kd", {}, 0, 70.0), ("kd", {}, 1, 72.0), ("kd", {}, 2, 99.0, {"finished": False})
    )
    last = cell.accuracy("last")
    assert (last.n, last.mean) == (2, 71.0)
    assert last.std == pytest.approx(2**0.5)
    assert cell.state == "2 finished, 1 running"


def test_a_cell_is_compared_with_the_one_that_differs_in_the_baselines_axis_alone(cells):
    made = cells(
        *((f"{m} {p}", {"method": m, "pair": p}, seed, base + gain + seed)
          for m, gain in (("kd", 0.0), ("ctkd", 0.5))
          for p, base in (("a", 60.0), ("b", 80.0))
          for seed in (0, 1)),
        baseline={"method": "kd"},
    )  # fmt: skip
    found = {cell.name: (cell.baseline, cell.against and cell.against.difference) for cell in made}
    assert found == {
        "kd a": ("kd a", None),
        "kd b": ("kd b", None),
        "ctkd a": ("kd a", 0.5),
        "ctkd b": ("kd b", 0.5),
    }


def test_the_only_cell_with_the_baselines_values_serves_all_but_none_of_several_does(cells):
    others = [(end, {"method": "ctkd", "end": end}, 0, 71.0) for end in "12"]
    made = cells(("kd", {"method": "kd"}, 0, 70.0), *others, baseline={"method": "kd"})
    assert [cell.baseline for cell in made] == ["kd"] * 3
    several = [(f"kd{t}", {"method": "kd", "T": t}, 0, 70.0) for t in "12"]
    made = cells(*several, ("ctkd", {"method": "ctkd"}, 0, 71.0), baseline={"method": "kd"})
    assert [cell.baseline for cell in made] == ["kd1", "kd2", None]


def test_the_verdict_on_one_cell_says_what_the_interval_says(cells):
    def said(name, *values):
        given = [(f"kd{name}", {"m": "kd"}, seed, 70.0 + seed) for seed in range(3)]
        given += [(name, {"m": "ctkd"}, seed, 70.0 + seed + v) for seed, v in enumerate(values)]
        return verdict(cells(*given, baseline={"m": "kd"}))

    assert said("a", -1.0, -1.1, -0.9).endswith("The interval excludes 0: a is worse.")
    unclear = said("b", 0.5, -0.5, 0.3)
    assert unclear.startswith("b: +0.10 points against kdb, 95 % interval −1.21 to +1.41, 3 shared")
    assert (
        "do not tell the two apart. The test would find a difference of this size with" in unclear
    )


def test_a_difference_of_recipes_has_a_note(cells):
    made = cells(
        ("a", {"lr": "1"}, 0, 70.0, {"recipe": {"SGD.lr": 1}}),
        ("b", {"lr": "2"}, 0, 71.0, {"recipe": {"SGD.lr": 2}}),
        baseline={"lr": "1"},
    )
    assert made[1].recipe_differs == ("SGD.lr",)
    assert any("SGD.lr" in note for note in sweep_table(made, ["lr"]).notes)


def test_the_table_has_a_column_for_each_axis_and_the_published_number(cells):
    made = cells(("kd", {"method": "kd"}, 0, 70.0), baseline={})
    table = sweep_table(made, ["method"])
    titles = [column.title for column in table.columns]
    assert titles[:2] == ["method", "state"]
    assert table.rows[0][titles.index("published")] == 70.66
    assert table.rows[0][titles.index("reports")] == "last"
    assert table.rows[0][titles.index("published epochs")] == 240
    assert "RepDistiller" in table.notes[-2]
    assert table.notes[-1] == "The published runs have 240 epochs, these have 3."
    assert sweep_table(made, []).columns[0].title == "cell"


def test_runs_of_one_cell_with_different_teachers_have_a_note(cells):
    one, other = ({"recipe": {"Teacher.fingerprint": name}} for name in ("a1", "b2"))
    (alike,) = cells(("kd", {}, 0, 70.0, one), ("kd", {}, 1, 71.0, one))
    assert not any("mixes" in note for note in sweep_table([alike], []).notes)
    (mixed,) = cells(("kd", {}, 2, 70.0, one), ("kd", {}, 3, 71.0, other))
    assert mixed.mixed == ("Teacher.fingerprint",)
    assert any("mixes different settings" in note for note in sweep_table([mixed], []).notes)


def test_a_run_whose_files_are_damaged_is_left_out_and_named(cells, workdir):
    given = [("kd", {}, seed, 70.0 + seed) for seed in (0, 1)]
    (whole,) = cells(*given)
    assert not whole.damaged
    path = whole.runs[1].path / "metrics.jsonl"
    path.write_text("{torn\n" + path.read_text())
    (cell,) = sweep_cells(whole.runs, {})
    assert cell.accuracy("last").n == 1
    (note,) = (note for note in sweep_table([cell], []).notes if "Left out" in note)
    assert f"{path}, line 1: damaged" in note


def test_a_run_of_which_nothing_is_written_yet_is_there_all_the_same(tmp_path):
    runs = [SweepRun("kd", {}, 0, "queued", tmp_path / "none", 3)]
    (cell,) = sweep_cells(runs, {})
    assert (cell.state, cell.accuracy("last"), cell.temperature) == ("queued", None, None)
