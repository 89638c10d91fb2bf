"""`ctkd check`: the example of the page, a faulty copy of it, and what cannot be checked."""

import pathlib
import re

import pytest

from ctkd.commands.program import main
from ctkd.testing.ctkd_faults import FAULTS

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Writes a module into the working directory, and checks it: (status, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # restores sys.path afterwards

    def call(name, text, function="make_step"):
        (tmp_path / f"{name}.py").write_text(text)
        status = main(["check", f"{name}:{function}"])
        return status, *capsys.readouterr()

    return call


def test_the_example_of_the_page_passes_and_a_faulty_copy_does_not(check):
    text = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    status, out, _ = check("right_step", text)
    assert status == 0
    assert "right_step:make_step: all checks pass (not checked" in out
    faulty = text.replace("* t * t", "* t.item() ** 2")
    assert faulty != text
    status, out, _ = check("faulty_step", faulty)
    assert status == 1
    assert "faulty_step:make_step: 1 fault\n\nT² detached\n" in out
    assert f"cure   {FAULTS['T² detached'].cure}" in out


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("not_a_step", "make_step = dict", "returns a dict: expected a ctkd.testing.TrainingStep"),
        ("no_step", "", "no_step has no function 'make_step'"),
        ("script", "raise SystemExit(1)", "script cannot be imported: SystemExit: 1"),
        ("broken", "1 / 0", "broken cannot be imported: ZeroDivisionError"),
        ("raising", "def make_step(): raise KeyError(3)", "cannot be checked: KeyError: 3"),
    ],
)
def test_what_cannot_be_checked_is_an_error(check, name, text, message):
    status, _, err = check(name, text)
    assert status == 2
    assert message in err


def test_a_step_without_a_colon_is_an_error(capsys):
    assert main(["check", "my_module"]) == 2
    assert "expected MODULE:FUNCTION" in capsys.readouterr().err
    assert main(["check", "steps/mine.py:make_step"]) == 2
    assert "give the module, steps.mine:make_step" in capsys.readouterr().err


def test_the_table_of_the_page_has_every_fault():
    for fault in FAULTS.values():
        assert f"| {fault.name} | {fault.effect} | {fault.cure} |" in PAGE
