import pytest

from ctkd.errors import DataError
from ctkd.results.compare.methods import compare
from ctkd.results.compare.standings import standings_table
from ctkd.results.read.summaries import read_summaries

HEADER = "cell,method,seed,state,dataset,student,teacher,epochs,primary,last_top1,best_top1,t_star"


def row(cell, seed, last, state="finished", epochs="6", teacher="resnet56"):
    values = f"cifar100,resnet8,{teacher},{epochs},test_top1,{last},{last + 1},"
    return f"{cell},{cell},{seed},{state},{values if state == 'finished' else ',,,,,,,'}"


@pytest.fixture
def table(tmp_path):
    def write(*lines, header=HEADER):
        path = tmp_path / "runs.csv"
        path.write_text("\n".join([header, *lines]) + "\n")
        return path

    return write


def test_the_paired_difference_comes_out_of_the_table(table):
    path = table(
        row("kd_temperature=4", 0, 40.0),
        row("kd_temperature=4", 1, 41.0),
        row("ctkd", 0, 41.0),
        row("ctkd", 1, 43.0),
        row("vanilla", 0, 39.5, teacher=""),
        row("vanilla", 1, 0, state="running"),
    )
    result = compare(read_summaries(path), "last", "kd_temperature=4")
    assert [standing.method for standing in result.standings] == [
        "kd_temperature=4", "ctkd", "vanilla",
    ]  # fmt: skip
    assert result.standings[1].against.difference == pytest.approx(1.5)
    assert result.standings[1].against.paired_variance == pytest.approx(0.5)
    assert result.standings[2].against.difference == pytest.approx(-0.5)
    assert [str(run.path) for run in result.unfinished] == [f"{path}:7"]
    assert result.selection == pytest.approx(1.0)


def test_what_nobody_published_has_no_column_and_what_waits_is_counted(table):
    waiting = [row("ctkd", seed, 0, state="queued") for seed in range(9)]
    result = compare(read_summaries(table(row("kd", 0, 40.0), *waiting)))
    made = standings_table(result)
    assert not {"published", "reports", "source"} & {column.title for column in made.columns}
    left = [note for note in made.notes if note.startswith("Left out")]
    assert len(left) == 4
    assert left[-1] == "Left out, not finished: 6 more runs."


def test_numbers_are_numbers_and_what_is_not_finite_is_none(table):
    (run,) = read_summaries(table(row("kd", 0, 40.5).removesuffix(",") + ",nan"))
    assert (run.seed, run.result("last_top1"), run.result("t_star")) == (0, 40.5, None)
    assert (run.name, run.student, run.teacher, run.dataset) == (
        "kd", "resnet8", "resnet56", "cifar100",
    )  # fmt: skip


def test_runs_of_other_lengths_are_not_compared(table):
    path = table(row("kd", 0, 40.0), row("ctkd", 0, 60.0, epochs="240"))
    titles = [row.pair for row in compare(read_summaries(path)).standings]
    assert titles == ["resnet56 → resnet8, epochs = 6", "resnet56 → resnet8, epochs = 240"]


def test_the_steps_and_the_teachers_must_be_equal_too(table):
    header = HEADER + ",steps,teacher_fingerprint"
    kd, vanilla = row("kd", 0, 40.0), row("vanilla", 0, 39.0, teacher="")
    others = [f"{row('ctkd', 0, 41.0)},100,a1", f"{row('ctkd', 0, 41.0)},200,a1"]
    others.append(f"{row('ctkd', 0, 41.0)},100,b2")
    lines = [f"{kd},100,a1", f"{vanilla},100,"]
    assert len(compare(read_summaries(table(*lines, others[0], header=header))).standings) == 3
    for other, end in zip(others[1:], ("steps = 200", 'fingerprint = "b2"'), strict=True):
        found = compare(read_summaries(table(*lines, other, header=header))).standings
        (ctkd,) = (row for row in found if row.method == "ctkd")
        assert ctkd.pair.endswith(end)
        assert sum(row.pair == ctkd.pair for row in found) <= 2  # at most with vanilla


def test_a_run_bears_its_own_name_where_the_cell_is_named_by_something_else(table):
    header = f"{HEADER},name"
    lines = [f"{row('resnet56_resnet8', 0, 40.0)},kd", f"{row('resnet56_resnet8', 0, 41.0)},ctkd"]
    result = compare(read_summaries(table(*lines, header=header)), "last", "kd")
    assert [standing.method for standing in result.standings] == ["kd", "ctkd"]
    assert result.standings[1].against.difference == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["kd,kd,zero,running,,,,,,,,"], r"runs.csv:2: .* whole number under seed"),
        (["kd,kd,0,finished,,,,,,,,"], r"runs.csv:2: .* needs a value under student, dataset, ep"),
        (["kd,kd,0"], r"runs.csv:2: it has more or fewer fields than line 1"),
        (["kd,kd,0,running,,,,,,,,,,,"], r"runs.csv:2: it has more or fewer fields than line 1"),
        (['"kd'], r"runs.csv: damaged, not comma-separated"),
    ],
)
def test_a_damaged_line_is_named(table, lines, message):
    with pytest.raises(DataError, match=message):
        read_summaries(table(*lines))


def test_a_table_as_a_spreadsheet_saves_it(table):
    path = table(row("kd", 0, 40.0), row("ctkd", 0, 41.0))
    text = path.read_text().replace("\n", "\r\n")
    path.write_bytes(text.encode("utf-8-sig"))
    assert [run.result("last_top1") for run in read_summaries(path)] == [40.0, 41.0]
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match=r"in UTF-8 \(it is UTF-16 text, expected UTF-8: save it"):
        read_summaries(path)


def test_another_table_is_refused(table, tmp_path):
    with pytest.raises(DataError, match=r"expected the columns cell, seed, state, as in"):
        read_summaries(table("0,1", header="step,temperature"))
    with pytest.raises(DataError, match=r"cannot be read: No such file"):
        read_summaries(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe,\n")
    with pytest.raises(DataError, match=r"damaged"):
        read_summaries(tmp_path / "bytes.csv")
