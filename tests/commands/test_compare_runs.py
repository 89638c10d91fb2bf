import csv
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctkd.commands import compare_runs as compare

ROOT = Path(__file__).resolve().parents[2]


def load(path):
    """A file outside the package: the builder of work directories."""
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load(ROOT / "tests" / "results" / "conftest.py").build


@pytest.fixture
def runs(tmp_path):
    """KD 70, 71, 72 and CTKD 71, 73, 75 over three seeds, and a teacher that is no run."""
    for seed, (kd, ctkd) in enumerate([(70.0, 71.0), (71.0, 73.0), (72.0, 75.0)]):
        build(tmp_path / "runs" / f"kd-{seed}", name="kd", seed=seed, last=kd, policy="constant")
        build(tmp_path / "runs" / f"ctkd-{seed}", name="ctkd", seed=seed, last=ctkd)
    build(tmp_path / "runs" / "teachers" / "a1b2", name="teacher", policy=None)
    return tmp_path / "runs"


def refused(capsys, *arguments):
    """The message of a comparison that must end with 2 and print nothing else."""
    status = compare.main([str(argument) for argument in arguments])
    text = capsys.readouterr()
    assert (status, text.out) == (2, "")
    assert text.err.startswith("ctkd compare: ")
    assert "Traceback" not in text.err
    return text.err


def test_the_terminal_shows_table_and_notes(runs, capsys):
    assert compare.main([str(runs)]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0].strip() == "resnet56 → resnet20"
    ctkd = next(text.split() for text in lines if text.strip().startswith("ctkd"))
    assert ctkd[:8] == ["ctkd", "3", "73.00", "±", "2.00", "73.30", "±", "2.00"]
    assert "+2.00" in ctkd  # against kd, which is the default
    assert "Shown: last" in text
    assert "0.30 points" in text
    assert "Seeds needed" in text
    assert "teacher (" not in text


def test_the_differences_are_drawn_in_a_figure(runs, tmp_path, capsys):
    figure = tmp_path / "new" / "differences.png"
    assert compare.main([str(runs), f"--figure={figure}"]) == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert figure.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert "written" not in capsys.readouterr().out  # the table can be piped
    assert "ends in .png or .pdf" in refused(capsys, runs, "--figure=differences.svg")


def test_markdown_latex_and_csv_on_standard_output(runs, capsys):
    assert compare.main([str(runs), "--format", "markdown", "--show", "best"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("| pair ")
    assert "- Shown: best, the best test epoch's accuracy" in text
    assert compare.main([str(runs), "--format", "latex"]) == 0
    assert r"\begin{tabular}" in capsys.readouterr().out
    assert compare.main([str(runs), "--format", "csv", "--baseline", "ctkd"]) == 0
    text = capsys.readouterr()
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(text.out))}
    assert float(rows["kd"]["Δ ctkd"]) == -2.0
    assert "Shown: last" in text.err  # CSV has no place for notes


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("table.md", "| pair"),
        ("table.csv", "pair,method"),
        ("table.tex", "% needs"),
        ("table.txt", "resnet56 → resnet20"),
    ],
)
def test_the_suffix_of_the_output_is_its_format(runs, tmp_path, capsys, name, begin):
    output = tmp_path / name
    assert compare.main([str(runs), "--output", str(output)]) == 0
    assert output.read_text(encoding="utf-8").startswith(begin)
    assert str(output) in capsys.readouterr().out
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_without_kd_there_is_no_default_baseline(runs, capsys):
    assert compare.main([str(path) for path in runs.glob("ctkd-*")]) == 0
    assert "Δ" not in capsys.readouterr().out


def test_users_mistakes(runs, tmp_path, capsys):
    assert "did you mean kd" in refused(capsys, runs, "--baseline", "kdd")
    assert "missing: no such folder" in refused(capsys, runs, tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "no work directory in it" in refused(capsys, tmp_path / "empty")
    assert "has no validation split" in refused(capsys, runs, "--show", "chosen")
    text = refused(capsys, runs, "--output", tmp_path / "table.docx")
    assert "expected a suffix out of .md, .csv, .tex, .txt" in text
    assert "No such file" in refused(capsys, runs, "--output", tmp_path / "nowhere" / "t.md")
    build(tmp_path / "runs" / "again", name="kd", seed=0, policy="constant")
    text = refused(capsys, runs)
    assert "two runs of kd" in text
    assert str(runs / "again") in text
    assert str(runs / "kd-0") in text


def test_different_recipes(runs, capsys):
    build(runs / "other", name="dkd", recipe={"Sgd.lr": 0.1})
    assert compare.main([str(runs)]) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if line.startswith("resnet56")] == [
        "resnet56 → resnet20, lr = 0.05",
        "resnet56 → resnet20, lr = 0.1",
    ]


def test_a_damaged_run(runs, capsys):
    (runs / "kd-1" / "summary.json").write_text("{")
    assert "summary.json, line 1: damaged" in refused(capsys, runs)


@pytest.mark.parametrize(
    "arguments", [[], ["x", "--format", "word"], ["x", "--show", "first"], ["x", "--basline", "kd"]]
)
def test_unknown_and_bad_flags(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        compare.main(arguments)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_as_a_command_from_anywhere(runs, tmp_path):
    """Run as a user runs it, in a folder from which ctkd is importable only because of the tool."""
    command = [sys.executable, str(ROOT / "tools" / "compare.py"), str(runs)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, encoding="utf-8"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "resnet56 → resnet20" in done.stdout
    done = subprocess.run(
        [*command, "--baseline", "x"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_two_runs_are_compared_setting_by_setting(tmp_path, capsys):
    for name, epochs, more in (("a", 10, ""), ("b", 20, "CTKD.steps = \\\n    [1,\n     2]\n")):
        (tmp_path / name).mkdir()
        text = f"# Macros:\nepochs = {epochs}\nseed = 0\n{more}"
        (tmp_path / name / "config.gin").write_text(text)
        origin = {"commit": name, "torch": "2.0"}
        (tmp_path / name / "provenance.jsonl").write_text(json.dumps(origin) + "\n")
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "b"), "--config"]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()[2:] if line]
    assert lines == [
        ["config.gin", "A", "B"],
        ["epochs", "10", "20"],
        ["CTKD.steps", "–", "[1, 2]"],
        ["provenance.jsonl", "A", "B"],
        ["commit", "a", "b"],
    ]
    assert "compares two work directories, 1 came" in refused(capsys, tmp_path / "a", "--config")
    assert "expected the config.gin" in refused(capsys, tmp_path / "a", tmp_path, "--config")


def test_contrasts_need_one_recipe(runs, capsys):
    build(runs / "other", name="kd", seed=0, policy="constant", recipe={"Recipe.epochs": 99})
    assert "Choose one with --where" in refused(capsys, runs, "--contrasts=ctkd:kd")
    assert compare.main([str(runs), "--contrasts=ctkd:kd", "--where", "epochs=12"]) == 0
    assert "ctkd − kd" in capsys.readouterr().out
