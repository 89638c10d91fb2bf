"""The command: what its flags do, what it says, and the status it ends with."""

import pathlib
import re
import sys

import pytest

from ctkd import main as main_module
from ctkd.errors import ConfigError, Interrupted, NonFiniteError
from ctkd.macro_flags import gin_value
from ctkd.main import FLAGS, HELP, main


def fails_with(error, monkeypatch):
    def run(arguments, early):
        raise error

    monkeypatch.setattr(main_module, "run", run)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ConfigError("SGD.lr = 0: expected"), 2, "ctkd: SGD.lr = 0: expected\n"),
        (NonFiniteError("kd was NaN"), 3, "ctkd: stopped: kd was NaN\n"),
        (
            Interrupted("interrupted after step 3"),
            130,
            "ctkd: interrupted after step 3; the state is saved; the same command goes on from "
            "there\n",
        ),
        (
            KeyboardInterrupt(),
            130,
            "ctkd: interrupted; what was saved stays; the same command goes on from there\n",
        ),
    ],
)
def test_each_end_has_its_status_and_one_line(monkeypatch, capsys, error, status, message):
    fails_with(error, monkeypatch)
    assert main([]) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", message)


def test_our_own_faults_keep_their_traceback(monkeypatch):
    fails_with(ZeroDivisionError("ours"), monkeypatch)
    with pytest.raises(ZeroDivisionError, match="ours"):
        main([])


def test_without_arguments_given_those_of_the_process_count(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ctkd.main", "--help"])
    assert main() == 0
    assert "--gin_file" in capsys.readouterr().out


def test_help_names_every_flag_and_says_what_the_command_is(command):
    result = command("--help")
    assert (result.status, result.err) == (0, "")
    assert "ctkd train --gin_file=gin/digits/ctkd.gin, or python -m ctkd.main" in result.out
    described = set(re.findall(r"^  --(\w+) ", result.out, re.MULTILINE))
    assert all(len(line) <= 100 for line in result.out.splitlines()[:-1])
    assert described == set(HELP) == set(FLAGS)
    assert "130 interrupted" in result.out
    folder = re.search(r"The Gin files of ctkd are in (.*)", result.out)[1]
    assert (pathlib.Path(folder) / "digits" / "ctkd.gin").is_file()


def test_help_imports_neither_torch_nor_gin_nor_anything_heavy(python):
    result = python(
        "import sys; from ctkd.main import main; status = main(['--help'])\n"
        "heavy = ('torch', 'numpy', 'gin', 'torchvision', 'sklearn', 'matplotlib', 'rich')\n"
        "print(status, [name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    assert result.err.strip() == "0 []"


def test_flags_do_not_outlive_a_call(command):
    command("--gin_file=gin/digits/kd.gin", "--dry_run", "--gin_param=seed = 5")
    assert command().status == 2
    plain = command("--gin_file=gin/digits/kd.gin", "--dry_run")
    assert "seed 0" in plain.out
    assert FLAGS.gin_file == ["gin/digits/kd.gin"]


def test_files_and_bindings_may_be_repeated_and_later_ones_win(command, tmp_path):
    (tmp_path / "more.gin").write_text("seed = 3\nepochs = 4\n")
    result = command(
        "--gin_file=gin/digits/kd.gin",
        "--gin_file=more.gin",
        "--gin_param=seed = 7",
        "--gin_param=seed = 8",
        "--dry_run",
    )
    assert "# run                kd, 4 epochs, seed 8" in result.out


@pytest.mark.parametrize("spelling", ["--dry_run", "--dry_run=true", "-dry_run"])
def test_flags_in_absls_spellings(command, spelling):
    assert command("--gin_file", "gin/digits/kd.gin", spelling).status == 0


def test_as_a_process_the_status_is_the_exit_code(cli):
    result = cli("--gin_file=gin/digits/kd.gin", "--dry_run")
    assert (result.status, result.err) == (0, "")
    mistaken = cli("--gin_file=gin/digits/kd.gin", "--gin_param=epohcs = 2")
    assert mistaken.status == 2
    assert mistaken.err == ("ctkd: nothing refers to the macro 'epohcs'; did you mean epochs?\n")
    assert mistaken.out == ""


def test_without_gin_config_a_process_says_what_to_install(python):
    """The namespace folder gin/ answers `import gin` then, as an empty module."""
    result = python(
        "import importlib.machinery, sys\n"
        "class Folder:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'gin':\n"
        "            return importlib.machinery.ModuleSpec('gin', None, is_package=True)\n"
        "sys.meta_path.insert(0, Folder)\n"
        "from ctkd.main import main\n"
        "sys.exit(main(['--gin_file=gin/digits/kd.gin']))"
    )
    assert result.status == 2
    assert result.err == "ctkd: gin-config is not installed: pip install gin-config\n"


def test_flags_set_the_macros_of_their_names(command):
    given = ("--epochs=3", "--seed=4", "--student=digits_teacher", "--precision=bfloat16")
    result = command("--gin_file=gin/digits/kd.gin", "--dry_run", *given)
    assert "# run                kd, 3 epochs, seed 4" in result.out
    assert "student = @digits_teacher" in result.out
    assert "precision = 'bfloat16'" in result.out


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("teacher_weights", "/w/a.tar::b.pth", "'/w/a.tar::b.pth'"),
        ("teacher_weights", "None", "None"),
        ("data_dir", "it's", '"it\'s"'),
        ("device", "'cuda'", "'cuda'"),
        ("student", "@resnet20", "@resnet20"),
        ("steps_per_epoch", "None", "None"),
        ("workers", " 4", "4"),
    ],
)
def test_the_value_of_a_flag_as_gin_writes_it(name, value, expected):
    assert gin_value(name, value) == expected


def test_the_folder_of_a_run_alone_resumes_it(command):
    """`config.gin` holds all settings, those of the command line too."""
    first = command("--gin_file=gin/digits/vanilla.gin", "--epochs=1", "--workdir=run")
    assert first.status == 0, first.err
    again = command("--workdir=run")
    assert (again.status, again.err) == (0, "")
    assert "holds this run, finished; nothing is left to train" in again.out
