"""Where Gin files and their includes are found, and how their text is read."""

import codecs
import json
import subprocess
import sys

import gin
import pytest

import ctkd.engine.config.build  # noqa: F401 - its parts are what the files bind
from ctkd.engine.config import parse as config
from ctkd.engine.config.gin_files import ROOT, find
from ctkd.engine.job import Job
from ctkd.engine.teacher.own_training import teacher_job
from ctkd.errors import ConfigError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file below the working directory; returns its path."""
    monkeypatch.chdir(tmp_path)

    def call(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return call


@pytest.fixture
def mine(write, tmp_path, monkeypatch):
    """A folder of the user's own files; the working directory is another folder."""
    write("my/base.gin", "SGD.lr = 0.02\nseed = 7\nepochs = 1\n")
    write("my/config.gin", "include 'gin/digits/ctkd.gin'\ninclude 'base.gin'\n")
    write("my/digits/kd.gin", "include 'gin/digits/vanilla.gin'\nSGD.lr = 0.3\n")
    write("my/run.gin", "include 'digits/kd.gin'\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "my"


def refused(file):
    with pytest.raises(ConfigError) as caught:
        config.parse([str(file)], [])
    return str(caught.value)


@pytest.mark.parametrize("name", ["gin/digits/kd.gin", "digits/kd.gin"])
def test_files_are_found_below_the_root_from_any_folder(write, name):
    assert find(name) == ROOT / "gin/digits/kd.gin"
    config.parse([name], [])
    assert gin.query_parameter("KD.kd_weight") == 0.9


def test_a_file_of_the_working_directory_comes_first_on_the_command_line(write):
    path = write("gin/digits/kd.gin", "include 'gin/digits/vanilla.gin'\n")
    assert find("gin/digits/kd.gin") == path


def test_an_include_is_found_next_to_the_including_file(mine):
    config.parse([str(mine / "config.gin")], [])
    assert gin.query_parameter("SGD.lr") == 0.02
    assert config.macros(["seed", "epochs"]) == {"seed": 7, "epochs": 1}
    config.parse([str(mine / "run.gin")], [])
    assert gin.query_parameter("SGD.lr") == 0.3


def test_the_working_directory_changes_no_recipe_of_the_project(write):
    """A folder that happens to hold another gin/base.gin."""
    expected = Job(["gin/digits/kd.gin"]).build(meta=True).settings
    write("gin/base.gin", "seed = 42\nprecision = 'bfloat16'\n")
    assert Job(["gin/digits/kd.gin"]).build(meta=True).settings == expected


def test_the_files_that_were_read_come_in_order(mine):
    files = config.parse([str(mine / "config.gin")], [])
    assert [str(file) for file in files] == [
        "gin/base.gin",
        "gin/digits/base.gin",
        "gin/digits/kd.gin",
        "gin/digits/ctkd.gin",
        str(mine / "base.gin"),
        str(mine / "config.gin"),
    ]


def test_a_teacher_is_found_next_to_the_file_that_names_it(mine, write):
    write("my/teacher.gin", "include 'gin/digits/teacher.gin'\n")
    write("my/kd.gin", "include 'gin/digits/kd.gin'\nTeacher.run = 'teacher.gin'\n")
    assert Job([str(mine / "kd.gin")]).build(meta=True).teacher_gin == str(mine / "teacher.gin")
    own = Job(["gin/digits/kd.gin"]).build(meta=True)
    assert own.teacher_gin == str(ROOT / "gin/digits/teacher.gin")
    assert own.settings["recipe"]["Teacher.run"] == "gin/digits/teacher.gin"


def test_a_teacher_inherits_only_the_macros_that_its_files_refer_to(mine, write):
    """The digits have no data_dir, and the student's data set may have one."""
    write("my/kd.gin", "include 'gin/digits/kd.gin'\ndata_dir = '/data'\nthreads = 3\n")
    job = teacher_job(Job([str(mine / "kd.gin")]).build(meta=True))
    assert "threads = 3" in job.gin_params
    assert not any("data_dir" in binding for binding in job.gin_params)
    job.build(meta=True)


def test_a_home_folder_that_no_shell_has_replaced(mine, monkeypatch):
    monkeypatch.setenv("HOME", str(mine))
    config.parse(["~/run.gin"], [])
    assert gin.query_parameter("SGD.lr") == 0.3


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("gin/digits/ctdk.gin", "; did you mean gin/digits/ctkd.gin or "),
        ("gin/cifra100/ctkd.gin", "; did you mean gin/cifar100/ctkd.gin or "),  # codespell:ignore
        ("gin/imagenet/ctkd", "; did you mean gin/imagenet/ctkd.gin or "),
        ("digits/dkd_ctkd", "; did you mean gin/digits/dkd_ctkd.gin or "),
        ("unlike.gin", " (searched: "),
        ("", " (searched: "),
    ],
)
def test_a_missing_file_is_answered_with_the_nearest(write, tmp_path, name, nearest):
    message = refused(name)
    assert message.startswith(f"no Gin file '{name}'{nearest}")
    assert f"searched: {tmp_path / name}, {ROOT}" in message


def test_a_missing_include_names_the_line_and_what_was_looked_for(mine, write):
    path = write("my/a.gin", "seed = 1\n\ninclude 'gin/digits/kdd.gin'\n")
    message = refused(path)
    assert message.startswith(f"{path}, line 3, includes a missing file: no Gin file")
    assert "did you mean gin/digits/kd.gin" in message
    assert f"(searched: {mine / 'gin/digits/kdd.gin'}" in message
    assert "elsewhere" not in message


def test_a_circular_include_shows_the_circle(mine, write):
    for name, other in ("ab", "bc", "ca"):
        write(f"my/{name}.gin", f"include '{other}.gin'\n")
    chain = " → ".join(str(mine / f"{name}.gin") for name in "abca")
    assert refused(mine / "a.gin") == f"circular include: {chain}"


@pytest.mark.parametrize("start", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_byte_order_marks_and_line_ends_of_other_systems(write, start, end):
    lines = [b"include 'gin/digits/vanilla.gin'", b"SGD.lr = 0.3", b""]
    write("base.gin", start + b"SGD.gamma = 0.5" + end)
    path = write("mine.gin", start + end.join([b"include 'base.gin'", *lines]))
    config.parse([str(path)], [])
    assert (gin.query_parameter("SGD.lr"), gin.query_parameter("SGD.gamma")) == (0.3, 0.5)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("epochs = 1".encode("utf-16"), "it is UTF-16 text"),
        (b"seed = 1\n# pas\xe9", "line 2: the byte 0xE9 is not UTF-8 (perhaps Latin-1"),
    ],
)
def test_other_encodings_are_refused_by_name(write, data, found):
    path = write("mine.gin", data)
    assert refused(path).startswith(f"{path} cannot be read as a Gin file: {found}")


def test_errors_name_the_users_line(mine, write):
    path = write("my/a.gin", "include 'base.gin'\nSGD.lrr = 0.1\n")
    assert f'In file "{path}", line 2' in refused(path)


def test_a_sweep_finds_files_next_to_it(mine, write, tmp_path):
    write(
        "my/sweep.gin",
        "Sweep.base = ['gin/digits/ctkd.gin', 'base.gin']\nSweep.seeds = [0]\n",
    )
    code = (
        "import json, sys\nfrom ctkd.sweeps.study import read_study\n"
        "print(json.dumps(read_study(sys.argv[1]).cells[0].files))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(mine / "sweep.gin")], capture_output=True, text=True
    )
    assert json.loads(done.stdout) == [str(ROOT / "gin/digits/ctkd.gin"), str(mine / "base.gin")]
