import json
import subprocess
import sys

import numpy as np
import pytest

from ctkd.errors import DataError
from ctkd.results.read.runs import find_runs, read_run


def test_a_finished_run(workdir):
    run = read_run(workdir(name="kd", seed=3, epochs=4, validation=True))
    assert (run.teacher, run.student, run.dataset) == ("resnet56", "resnet20", "cifar100")
    assert (run.name, run.seed, run.finished, run.primary) == ("kd", 3, True, "test_top1")
    assert run.result("last_top1") == 71.0
    assert run.result("teacher_claimed") is None
    assert [row.epoch for row in run.metrics] == [1, 2, 3, 4]
    assert [row["epoch"] for row in run.landscape] == [0, 1, 2, 3, 4]


def test_the_trace_holds_every_step_and_starts_at_the_published_temperature(workdir):
    trace = read_run(workdir()).trace
    assert len(trace["step"]) == 600
    assert trace["temperature"][0] == pytest.approx(15.6)
    assert trace["temperature"][-1] < 4
    assert np.isnan(read_run(workdir("constant", policy="constant")).trace["lambda"]).all()


def test_series_leave_out_epochs_without_a_value(workdir):
    run = read_run(workdir(epochs=6, every=3, policy="constant"))
    assert run.series("test_top1")[0].tolist() == [3, 6]
    assert len(run.series("lambda")[0]) == 0
    assert len(run.series("no such thing")[1]) == 0


def test_nan_and_infinity_count_as_missing(workdir):
    folder = workdir(epochs=3)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows[0]["grad_norm"], rows[1]["grad_norm"] = float("nan"), float("inf")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_run(folder).series("grad_norm")[0].tolist() == [3]


def test_a_run_without_a_teacher_has_neither_landscape_nor_trace(workdir):
    run = read_run(workdir(policy=None))
    assert (run.teacher, run.landscape, run.trace) == (None, [], {})


def test_a_teacher_that_is_configured_but_not_used_is_none(workdir):
    recipe = {"Teacher.network": "@resnet56", "Teacher.min_accuracy": 50.0}
    assert read_run(workdir("done", policy=None, recipe=recipe)).teacher is None
    assert read_run(workdir("begun", policy=None, recipe=recipe, finished=False)).teacher is None


def test_a_run_in_progress_is_readable(workdir):
    folder = workdir(finished=False)
    for name in ("metrics.jsonl", "landscape.jsonl", "temperature.csv"):
        text = (folder / name).read_text()
        (folder / name).write_text(text[:-9])  # stopped in the middle of the last line
    run = read_run(folder)
    assert (run.finished, run.summary, run.teacher) == (False, None, "resnet56")
    assert len(run.metrics) == 11
    assert len(run.landscape) == 12
    assert len(run.trace["step"]) == 599


def test_a_run_that_has_only_begun_is_readable(workdir):
    folder = workdir(finished=False)
    (folder / "metrics.jsonl").unlink()
    (folder / "landscape.jsonl").write_text("")
    (folder / "temperature.csv").write_text("step,ep")
    run = read_run(folder)
    assert (run.metrics, run.landscape, run.trace) == ([], [], {})


def test_a_last_line_that_is_whole_counts_even_without_its_newline(workdir):
    folder = workdir(epochs=3)
    (folder / "metrics.jsonl").write_text((folder / "metrics.jsonl").read_text()[:-1])
    assert len(read_run(folder).metrics) == 3


def test_a_repeated_epoch_counts_once(workdir):
    folder = workdir(epochs=3)
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 2, "train_loss": 0.5}\n')
    run = read_run(folder)
    assert [row.epoch for row in run.metrics] == [1, 2, 3]
    assert run.metrics[1].get("train_loss") == 0.5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("settings.json", '{\n"method": {},\n oops', r"settings\.json, line 3: damaged, not JSON"),
        ("settings.json", b"\xff\xfe\xfa", r"settings\.json: damaged, not text in UTF-8"),
        ("settings.json", "[1]", r"settings\.json: expected a JSON object, found list"),
        ("settings.json", '{"recipe": 3}', r"settings\.json: expected an object under 'recipe'"),
        ("summary.json", '{"finished": tr', r"summary\.json, line 1: damaged"),
        (
            "metrics.jsonl",
            '{"epoch": 1}\n{"epo\n{"epoch": 3}\n',
            r"metrics\.jsonl, line 2: damaged",
        ),
        ("metrics.jsonl", '{"epoch": 1.5}\n', r"line 1: expected an object with a whole number"),
        ("landscape.jsonl", '{"epoch": 0}\n', r"landscape\.jsonl, line 1: expected 'temperatures'"),
        (
            "landscape.jsonl",
            '{"epoch": 0, "temperatures": [2, 1], "losses": [1, 2]}\n',
            r"line 1: expected 'temperatures', positive and ascending",
        ),
        ("temperature.csv", "step,T\n1,2\n", r"temperature\.csv, line 1: expected the columns"),
        (
            "temperature.csv",
            "step,epoch,temperature,low,high,lambda\n0,0,5,5,5,0\n1,0.1,hot,5,5,0\n",
            r"temperature\.csv, line 3: expected step,epoch",
        ),
    ],
)
def test_a_damaged_file_is_named_with_its_line(workdir, name, content, message):
    folder = workdir()
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_run(folder)


def test_a_folder_that_is_no_work_directory_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"is not a work directory: it contains no settings\.json"):
        read_run(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        read_run(tmp_path / "missing")


def test_scopes_and_calls_are_no_part_of_a_networks_name(workdir):
    recipe = {"Recipe.student": "@student/wrn_16_2()", "Teacher.network": "@wrn_40_2"}
    run = read_run(workdir(finished=False, recipe=recipe))
    assert (run.teacher, run.student) == ("wrn_40_2", "wrn_16_2")


def test_detection_is_recognized_by_its_metric(workdir):
    folder = workdir(finished=False, epochs=1)
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "ap": 33.1}\n')
    assert (read_run(folder).primary, read_run(folder).measure) == ("ap", "ap")


def test_runs_are_found_at_any_depth_but_not_among_teachers_and_what_was_moved_aside(
    workdir, tmp_path
):
    first, second = workdir("sweep/kd/0"), workdir("sweep/ctkd/0")
    workdir("sweep/teachers/a1b2")
    workdir("sweep/kd/0/teachers/a1b2")
    moved = workdir("sweep/kd/0.old-12")
    assert find_runs([tmp_path]) == [second, first]
    assert find_runs([first, tmp_path / "sweep", first]) == [second, first]
    assert find_runs([moved]) == [moved]  # named, it is meant


def test_a_folder_without_runs_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no work directory in it"):
        find_runs([tmp_path / "empty"])
    with pytest.raises(DataError, match="missing: no such folder"):
        find_runs([tmp_path / "missing"])


def test_importing_the_layer_loads_no_heavy_library():
    modules = (
        "compare.groups compare.methods compare.published compare.rows compare.standings "
        "compare.statistics compare.sweep_table compare.tables figures.draw_curves "
        "figures.draw_differences figures.draw_landscape figures.draw_rows figures.draw_sweep "
        "figures.save read.runs read.schema read.summaries sweep_page"
    )
    code = f"""
import sys, importlib
for name in {modules.split()!r}: importlib.import_module("ctkd.results." + name)
heavy = {{"numpy", "scipy", "matplotlib", "rich", "torch", "gin"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
