"""Planned contrasts: Holm's correction, McNemar's test, and the table of `ctkd compare`."""

import csv
import io

import pytest
from scipy.stats import ttest_rel

from ctkd.commands import compare_runs
from ctkd.results.compare.statistics import detectable_difference, holm, mcnemar, power


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_mcnemar_is_the_binomial_test_of_the_images_that_differ():
    a = [True] * 8 + [False] * 1 + [True] * 20
    b = [False] * 8 + [True] * 1 + [True] * 20
    assert mcnemar(a, b) == (8, 1, pytest.approx(2 * (1 + 9) / 2**9))
    assert mcnemar(a, a) == (0, 0, 1.0)
    with pytest.raises(ValueError, match="shorter|longer"):
        mcnemar(a, b[1:])


def test_the_detectable_difference_has_power_080():
    assert power(detectable_difference(2.0, 12) / 2.0, 12) == pytest.approx(0.8, abs=1e-6)
    assert detectable_difference(2.0, 2) is None


@pytest.fixture
def runs(workdir, tmp_path):
    """Three methods, four seeds; ctkd's and kd's predictions of ten images, all of class 1."""
    last = {"kd": [70, 71, 72, 70], "ctkd": [71, 73, 74, 73], "mean": [70, 72, 71, 71]}
    for name, values in last.items():
        for seed, value in enumerate(values):
            folder = tmp_path / f"{name}-{seed}"
            workdir(folder.name, name=name, seed=seed, last=float(value))
            right = {"kd": 2, "ctkd": 9}.get(name)
            if right:
                lines = ["1,1"] * right + ["1,0"] * (10 - right)
                (folder / "predictions.csv").write_text("\n".join(["target,prediction", *lines]))
    return tmp_path


def test_the_table_of_the_command(runs, capsys):
    given = [str(runs), "--format", "csv", "--contrasts", "ctkd:kd,ctkd:mean,mean:kd?"]
    assert compare_runs.main(given) == 0
    printed = capsys.readouterr()
    first, second, third = csv.DictReader(io.StringIO(printed.out))
    p = [ttest_rel([71, 73, 74, 73], b).pvalue for b in ([70, 71, 72, 70], [70, 72, 71, 71])]
    assert first["contrast"] == "ctkd − kd"
    assert float(first["Δ"]) == 2.0
    assert [float(row["p"]) for row in (first, second)] == pytest.approx(p)
    assert [float(row["p, Holm"]) for row in (first, second)] == pytest.approx(holm(p))
    assert (first["A alone right"], first["B alone right"], first["seeds apart"]) == (
        "28",
        "0",
        "4",
    )
    assert second["A alone right"] == ""  # the runs of `mean` have no predictions
    assert third["contrast"] == "mean − kd (exploratory)"
    assert third["p, Holm"] == ""
    assert "for 2 planned contrasts" in printed.err


@pytest.mark.parametrize(
    ("written", "message"),
    [("ctkd", "expected A:B, such as ctkd:kd"), ("ctkd:kdd", "no method is named 'kdd'")],
)
def test_an_unknown_contrast_is_an_error(runs, capsys, written, message):
    assert compare_runs.main([str(runs), "--contrasts", written]) == 2
    assert message in capsys.readouterr().err
