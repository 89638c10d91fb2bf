"""A `~` without a home directory: refused by name, and no folder `~` is made."""

import pathlib
import subprocess
import sys

import pytest

from ctkd.errors import ConfigError
from ctkd.files import expand_user, user_path
from ctkd.registry import DATASETS

ROOT = pathlib.Path(__file__).parents[1]
NOBODY = "~nobody_of_that_name"


@pytest.fixture
def homeless(monkeypatch):
    """A user without HOME and without an account."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])


def test_a_home_directory_is_filled_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_user("~/data", "cifar100.data_dir") == "/home/me/data"
    for same in ("data/~", "./~me", "/data", "https://host/~me/a.pt", ""):
        assert expand_user(same, "Teacher.weights") == same


def test_a_folder_with_such_a_name_can_be_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = user_path(f"./{NOBODY}/x", "--workdir")
    assert path == tmp_path / NOBODY / "x"
    assert user_path(path, "--workdir") == path


def test_what_cannot_be_filled_in_is_named(homeless):
    with pytest.raises(ConfigError) as caught:
        expand_user(f"{NOBODY}/x", "cifar100.data_dir")
    assert str(caught.value) == (
        f"cifar100.data_dir = '{NOBODY}/x': there is no user 'nobody_of_that_name' on this "
        f"machine; give the whole path, or './{NOBODY}/x' for a file or folder with the name "
        f"'{NOBODY}'"
    )
    with pytest.raises(ConfigError, match="--workdir '~/run': the home directory is unknown: HOME"):
        expand_user("~/run", "--workdir")


DIGITS = "--gin_file=gin/digits/kd.gin"
PLACE = f"{NOBODY}/x"


def param(name, value=PLACE):
    return f"--gin_param={name} = {value!r}"


CIFAR = ["--gin_file=gin/cifar100/vanilla.gin", param("data_dir")]
CASES = [
    ([DIGITS, f"--workdir={PLACE}"], "--workdir"),
    ([f"--gin_file={PLACE}.gin"], "the Gin file"),
    ([DIGITS, param("teacher_weights")], "Teacher.weights ="),
    ([DIGITS, param("Runtime.teachers_dir")], "Runtime.teachers_dir ="),
    (
        [DIGITS, param("teacher_weights", "TEACHER"), param("Runtime.teacher_cache")],
        "Runtime.teacher_cache =",
    ),
    ([DIGITS, "--mode=evaluate", f"--checkpoint={PLACE}"], "--checkpoint"),
    (["--mode=evaluate", f"--checkpoint={PLACE}"], "--checkpoint"),
    (["--mode=evaluate", f"--workdir={PLACE}"], "--workdir"),
    ([*CIFAR, "--dry_run"], "cifar100.data_dir ="),
    (
        ["--gin_file=gin/coco/kd.gin", param("data_dir"), "--dry_run"],
        "coco.data_dir =",
    ),
    (
        ["--gin_file=gin/imagenet/kd.gin", param("data_dir"), "--dry_run"],
        "imagenet.data_dir =",
    ),
]


@pytest.mark.parametrize(("arguments", "subject"), CASES)
def test_every_setting_of_a_run(command, tmp_path, teacher_file, arguments, subject):
    given = [argument.replace("TEACHER", str(teacher_file)) for argument in arguments]
    result = command(*given)
    assert result.status == 2
    assert result.err.startswith(f"ctkd: {subject}")
    assert "there is no user 'nobody_of_that_name' on this machine" in result.err
    assert result.err.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if "~" in path.name]


def test_the_variable_that_names_the_images(monkeypatch):
    monkeypatch.setenv("CTKD_DATA", PLACE)
    with pytest.raises(ConfigError, match=f"the environment variable CTKD_DATA '{NOBODY}/x': "):
        _ = DATASETS.get("cifar10")().folder


def test_the_list_of_the_images(tmp_path):
    (tmp_path / "train").mkdir()
    dataset = DATASETS.get("imagenet")(data_dir=str(tmp_path), train_list=PLACE)
    with pytest.raises(ConfigError, match=r"imagenet\.train_list = "):
        dataset.load()


@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", "https://example.org/resnet.pth"])
def test_a_download_makes_no_folder_of_that_name(homeless, monkeypatch, tmp_path, weights):
    from ctkd.models.weights.match import load_weights
    from ctkd.registry import MODELS

    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"the folder for downloads \(set TORCH_HOME\) '~/."):
        load_weights(MODELS.get("resnet18")(), weights, network="resnet18")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare.py", PLACE],
        ["compare.py", ".", f"--output={PLACE}.md"],
        ["report.py", PLACE],
        ["report.py", ".", f"--out={PLACE}"],
        ["benchmark.py", f"--json={PLACE}.json"],
    ],
)
def test_the_tools(tmp_path, environment, arguments):
    tool, *rest = arguments
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), *rest],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "there is no user 'nobody_of_that_name'" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [f"--sweep={PLACE}"],
        ["--sweep=gin/sweeps/digits.gin", f"--sweep_dir={PLACE}"],
        ["--status", f"--sweep_dir={PLACE}"],
        ["--sweep=gin/sweeps/digits.gin", f"--gin_file={PLACE}"],
    ],
)
def test_the_launcher(tmp_path, monkeypatch, capsys, arguments):
    from ctkd.sweeps.command import main

    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "there is no user 'nobody_of_that_name' on this machine" in error
    assert error.count("\n") == 1
