"""The examples run as they stand."""

import pathlib
import re
import runpy

import pytest

EXAMPLES = sorted((pathlib.Path(__file__).parents[1] / "examples").glob("ctkd_pkt.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_trains_in_under_forty_lines(path, capsys):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40
    found = runpy.run_path(str(path), run_name="__main__")
    output = capsys.readouterr().out
    assert float(re.search(r"accuracy ([\d.]+)", output)[1]) > 80
    assert 1 < found["outcome"].temperature < 15.6  # it has moved from where it starts
