"""Renamed parameters: the old name works, with a warning that names the new one."""

import json

from ctkd.engine.job import Job
from ctkd.renamed import RENAMED, keys_with_new_names, with_new_names
from ctkd.results.read.schema import RunSettings

KD = "gin/digits/kd.gin"


def test_the_new_names_exist_and_the_old_ones_do_not():
    run = Job([KD]).build(meta=True)
    names = {name for values in run.settings.values() for name in values}
    assert set(RENAMED.values()) <= names
    assert not RENAMED.keys() & names


def test_an_old_name_in_a_file_and_on_the_command_line(tmp_path):
    own = tmp_path / "own.gin"
    own.write_text(f"include '{KD}'\nTeacher.floor = 12.0  # Teacher.floor\n")
    run = Job([str(own)], ["Teacher.claimed = 90.0"]).build(meta=True)
    assert (run.teacher.min_accuracy, run.teacher.published_accuracy) == (12.0, 90.0)
    on_line, in_file = run.config_faults
    assert in_file == (
        f"{own}: Teacher.floor is now called Teacher.min_accuracy; the old name works up to "
        "version 0.2"
    )
    assert on_line.startswith("--gin_param 'Teacher.claimed = 90.0': Teacher.claimed is now called")
    assert Job([KD]).build(meta=True).config_faults == ()


def test_only_bindings_are_renamed():
    text = "# Teacher.floor = 3\nMyTeacher.floor = 1\nTeacher.floors = 2"
    assert with_new_names(text, "a.gin") == (text, ())


def test_settings_of_earlier_runs_are_read_under_the_new_names():
    assert keys_with_new_names({"Teacher.floor": 90.0, "a": 1}) == {
        "Teacher.min_accuracy": 90.0,
        "a": 1,
    }
    written = json.loads('{"runtime": {"Teacher.claimed": 72.34}}')
    assert RunSettings.from_json(written).runtime == {"Teacher.published_accuracy": 72.34}
