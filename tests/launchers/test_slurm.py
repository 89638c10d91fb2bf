"""The launcher as a command of its own, from a clone."""

import os
import pathlib
import subprocess
import sys

LAUNCHER = pathlib.Path(__file__).parents[2] / "launchers" / "slurm.py"


def call(*arguments, cwd, **more):
    return subprocess.run(
        [sys.executable, str(LAUNCHER), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **more},
        timeout=120,
    )


def test_it_runs_from_a_clone_and_prints_commands(tmp_path):
    done = call("--sweep", "gin/sweeps/digits.gin", "--dry_run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert all(line.startswith("python -m ctkd.main --gin_file=") for line in lines)


def test_it_takes_the_clones_own_package_whatever_else_is_installed(tmp_path):
    """Else the launcher would be of one version, and the runs that it starts of another."""
    (tmp_path / "ctkd").mkdir()
    (tmp_path / "ctkd" / "__init__.py").write_text("raise SystemExit('another version')\n")
    done = call("--help", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mistake_ends_with_2_and_one_message(tmp_path):
    done = call("--sweep", "gin/sweeps/digit.gin", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("ctkd: no Gin file 'gin/sweeps/digit.gin'")
    assert done.stdout == ""


def test_help_needs_neither_torch_nor_gin(tmp_path):
    code = (
        "import runpy, sys\nsys.argv = ['slurm.py', '--help']\n"
        f"try: runpy.run_path({str(LAUNCHER)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'gin', 'submitit'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 0, done.stderr
