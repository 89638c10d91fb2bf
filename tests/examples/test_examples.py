"""The examples: each is short, and does what its docstring says."""

import importlib.util
import re
import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def load(name):
    path = EXAMPLES[0].with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_short_and_has_a_test():
    assert [path.stem for path in EXAMPLES] == [
        "ctkd_pkt",
        "image_folder",
        "landscape",
        "own_loop",
        "transformers_trainer",  # run by tests/adapters/test_transformers.py
    ]
    assert all(len(path.read_text(encoding="utf-8").splitlines()) < 60 for path in EXAMPLES)


def test_in_your_own_loop_the_temperature_falls_from_its_start():
    first, *_, last = load("own_loop").main(epochs=4)
    assert 10.0 < first < 15.63
    assert last < 0.75 * first


def test_the_landscape_of_two_networks(tmp_path, capsys):
    load("landscape").main(str(tmp_path / "pair.png"), epochs=1)
    assert capsys.readouterr().out.startswith("T* = ")
    assert (tmp_path / "pair.png").read_bytes().startswith(b"\x89PNG")


def test_ctkd_with_a_feature_loss_trains_in_under_forty_lines(capsys):
    path = EXAMPLES[0].with_name("ctkd_pkt.py")
    assert len(path.read_text(encoding="utf-8").splitlines()) < 40
    found = runpy.run_path(str(path), run_name="__main__")
    output = capsys.readouterr().out
    assert float(re.search(r"accuracy ([\d.]+)", output)[1]) > 80
    assert 1 < found["outcome"].temperature < 15.6  # it has moved from where it starts


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel_and_was_saved_with_its_figures(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="a package of the extra 'dev'")
    import nbformat

    notebook = nbformat.read(ROOT / "examples/ctkd.ipynb", as_version=4)
    assert figures(notebook) == 3
    for cell in notebook.cells:
        shorter = cell.source.replace("range(10)", "range(2)")
        cell.source = shorter.replace("epochs = 10", "trial = True")
        if cell.cell_type == "code":
            cell.outputs = []
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute(cwd=str(tmp_path))
    assert figures(notebook) == 3


def figures(notebook):
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_a_folder_of_images(image_folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    student = load("image_folder").main(str(image_folders), "run", "trial = True", "threads = 1")
    assert student(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    assert "test accuracy" in capsys.readouterr().out
