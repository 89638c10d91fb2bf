"""The keys of a work directory's files, written and read by the same definitions."""

import pytest

from ctkd.results.read.grid_ends import bound_of, edge_text
from ctkd.results.read.schema import TRACE_COLUMNS, EpochRecord, RunSettings, RunSummary
from ctkd.results.read.work_files import columns_text, read_columns, read_trace, trace_text


def test_an_epoch_has_flat_keys_in_their_order():
    more = {"train_loss": 1.5, "test_top1": 70.0}
    record = EpochRecord(2, 10, 0.1, 0.5, 4.0, more, 800.0, 0.01)
    data = record.to_json()
    assert list(data) == [
        "epoch", "step", "lr", "lambda", "temperature", "train_loss", "test_top1", "images_per_s",
        "data_wait",
    ]  # fmt: skip
    assert EpochRecord.from_json(data) == record
    assert (record.get("lambda"), record.get("test_top1"), record.get("none")) == (0.5, 70.0, None)


@pytest.mark.parametrize(("primary", "measure"), [("test_top1", "top1"), ("ap", "ap")])
def test_the_results_of_a_summary_have_the_name_of_the_primary_metric(primary, measure):
    summary = RunSummary(finished=True, primary=primary, more={f"teacher_{measure}": 72.0},
                         last=70.0, best=71.0, chosen=70.5, chosen_epoch=2)  # fmt: skip
    data = summary.to_json()
    kinds = ("teacher", "last", "best", "chosen")
    assert [data[f"{kind}_{measure}"] for kind in kinds] == [72.0, 70.0, 71.0, 70.5]
    assert RunSummary.from_json(data) == summary


def test_without_a_validation_split_a_summary_has_no_chosen_epoch():
    data = RunSummary(last=70.0).to_json()
    assert not {"chosen_top1", "chosen_epoch", "chosen"} & data.keys()
    assert data["teacher"] is None


def test_an_unknown_key_of_a_summary_is_kept():
    assert RunSummary.from_json({"last_top1": 70.0, "own": 1}).to_json()["own"] == 1


def test_settings_need_an_object_in_each_set():
    settings = RunSettings("kd", {"KD.weight": 1}, {}, {"Seed.seed": 0})
    assert RunSettings.from_json(settings.to_json()) == settings
    with pytest.raises(ValueError, match="an object under 'seed'"):
        RunSettings.from_json({"seed": 3})


def test_the_files_of_columns_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "temperature.csv"
    path.write_text(trace_text([(1, 0.5, 15.6, 15.0, 16.0, 0.0), (2, 1.0, 4.0, 3.0, 5.0, 1.0)]))
    trace = read_trace(path)
    assert tuple(trace) == TRACE_COLUMNS
    assert trace["temperature"].tolist() == [15.6, 4.0]
    path = tmp_path / "rows.csv"
    path.write_text(columns_text([("all", "cat, wild", 4.0, 0.5, 0.9, 0.1)]))
    rows = read_columns(path)
    assert rows["target"].tolist() == ["cat; wild"]
    assert rows["student_ce"].tolist() == [0.5]
    assert read_columns(tmp_path / "nothing.csv") == read_trace(tmp_path / "nothing.csv") == {}


def test_tokens_that_end_a_line_stay_in_one_row(tmp_path):
    tokens = ["\n", "\r", "\u2028", " the", ""]
    path = tmp_path / "rows.csv"
    path.write_text(columns_text([("all", token, 4.0, 0.5, 0.9, 0.1) for token in tokens]))
    assert list(read_columns(path)["target"]) == ["\\n", "\\r", "\\u2028", " the", ""]


def test_t_star_at_an_end_of_the_grid_is_a_bound():
    grid = [0.5, 2.0, 40.0]
    assert [bound_of(t, grid) for t in (39.99, 5.0, 0.5)] == ["at least", None, "at most"]
    assert [edge_text(t, grid) for t in (40.0, 5.0, 0.5)] == ["≥ 40", "= 5", "≤ 0.5"]
    data = RunSummary(t_star=40.0, t_star_is="at least").to_json()
    assert (data["t_star"], data["t_star_is"]) == (40.0, "at least")  # the number stays a number
    assert "t_star_is" not in RunSummary(t_star=4.0).to_json()
