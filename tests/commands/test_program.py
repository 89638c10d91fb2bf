"""The command `ctkd`: its subcommands, its help, and what it costs to start."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ctkd.commands import program

ROOT = Path(__file__).resolve().parents[2]
TOOLS = sorted((ROOT / "tools").glob("*.py"))


def test_help_lists_every_subcommand_in_80_columns(capsys):
    assert program.main([]) == 0
    assert program.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [m[1] for line in lines if (m := re.match(r"  ctkd (\S+)  +[A-Z]", line))]
    assert listed == 2 * list(program.SUBCOMMANDS)
    assert max(map(len, lines)) <= 80 + len(str(ROOT))


def test_an_unknown_subcommand_is_an_error(capsys):
    assert program.main(["trian"]) == 2  # codespell:ignore
    assert (
        capsys.readouterr().err == "ctkd: no subcommand 'trian'; did you mean train?\n"
    )  # codespell:ignore


@pytest.mark.parametrize("name", program.SUBCOMMANDS)
def test_every_subcommand_has_a_module_with_a_main(name):
    assert callable(importlib.import_module(program.SUBCOMMANDS[name].module).main)


def test_arguments_reach_the_subcommand(capsys):
    assert program.main(["train", "--gin_file=gin/digits/kd.gin", "--dry_run", "--seed=3"]) == 0
    assert "kd, 30 epochs, seed 3" in capsys.readouterr().out
    assert program.main(["evaluate"]) == 2
    assert "--mode=evaluate needs --workdir" in capsys.readouterr().err


def test_help_and_list_import_nothing_heavy(python):
    result = python(
        "import sys; from ctkd.commands.program import main\n"
        "status = [main(['--help']), main(['list']), main(['list', 'networks'])]\n"
        "heavy = ('torch', 'numpy', 'torchvision', 'sklearn', 'matplotlib', 'rich')\n"
        "print(status, [name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    assert result.err.strip() == "[0, 0, 0] []"


def test_the_tools_hand_over_to_the_subcommands():
    """`python tools/compare.py` and `ctkd compare` run the same function."""
    modules = {entry.module for entry in program.SUBCOMMANDS.values()}
    thin = [path for path in TOOLS if path.stem not in ("__init__", "check")]
    assert len(thin) >= 6
    for path in thin:
        (module,) = re.findall(r"^from (ctkd\.\S+) import main$", path.read_text(), re.MULTILINE)
        assert module in modules


def test_as_a_module_the_status_is_the_exit_code(environment, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ctkd", "compare", "nowhere"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "ctkd compare: nowhere: no such folder; expected a work directory, or a folder of them\n"
    )
