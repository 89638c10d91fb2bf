"""The source distribution and the wheel: what is in them, and that the wheel works elsewhere."""

import ast
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest

import ctkd

ROOT = pathlib.Path(__file__).parents[2]
# Each is imported where its component or adapter is asked for.
OPTIONAL = {"wandb", "timm", "transformers", "tokenizers", "trl", "lightning"}
pytestmark = pytest.mark.xdist_group("wheel")  # one process for all: the wheel is built once
PACKED = "ctkd gin launchers tools tests docs examples typings .ci .github".split()
BUILD = "import sys; from setuptools import build_meta as b; print(b.build_{}(sys.argv[1]))"


def call(command, cwd, **environment):
    """Runs it without this clone on Python's path; its output."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=kept | {"OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist of a copy of this clone, and the wheel built from that sdist alone."""
    folder = tmp_path_factory.mktemp("built")
    for name in PACKED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "clone" / name, ignore=ignored)
    for path in filter(pathlib.Path.is_file, ROOT.iterdir()):
        shutil.copy(path, folder / "clone")
    call([sys.executable, "-c", BUILD.format("sdist"), folder], folder / "clone")
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    call([sys.executable, "-c", BUILD.format("wheel"), folder], source)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The Python of a new environment with the wheel in it.

    What the wheel needs is not downloaded again: once the wheel is installed, a .pth file adds the
    packages of the environment that runs the tests, behind those of the new one.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    call([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", built[1]], folder)
    (site,) = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    return python


def files_below(folder, suffix=""):
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob(f"*{suffix}")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_the_source_distribution_holds_what_a_clone_holds(built):
    with tarfile.open(built[0]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    single = "LICENSE README.md BUILD.md CHANGELOG.md CITATION.cff CONTRIBUTING.md pyproject.toml"
    wanted = {*single.split(), *"setup.py MANIFEST.in .pre-commit-config.yaml .ci/run".split()}
    for folder in PACKED:
        wanted |= files_below(folder)
    assert sorted(wanted - held) == []
    assert not [name for name in held if name.endswith(".pyc")]


@pytest.mark.slow
def test_the_wheel_holds_the_package_its_gin_files_and_pages_alone(built):
    with zipfile.ZipFile(built[1]) as archive:
        held = set(archive.namelist())
        (metadata,) = (archive.read(n).decode() for n in held if n.endswith("/METADATA"))
    gin = {f"ctkd/{name}" for name in files_below("gin")}
    outside = {name for name in held if ".dist-info/" not in name}
    assert outside == files_below("ctkd") | gin
    assert any(name.endswith("LICENSE") for name in held)
    assert f"\nVersion: {ctkd.__version__}\n" in metadata
    assert "A frozen teacher and a student see the same inputs." in metadata


@pytest.mark.slow
def test_the_wheel_runs_the_digits_from_an_empty_folder(installed, tmp_path):
    code = "import ctkd; print(ctkd.__file__); print(ctkd.__version__)"
    where, version = call([installed, "-c", code], tmp_path).split()
    assert pathlib.Path(where).is_relative_to(installed.parents[1])
    assert version == ctkd.__version__
    ctkd_command = installed.parent / "ctkd"
    listed = call([ctkd_command, "list"], tmp_path)
    assert "dkd_ctkd" in listed
    assert "GlobalTemperature" in listed
    quick = ["--gin_param=epochs = 2", "--gin_param=Runtime.tensorboard = False"]
    call([installed, "-m", "ctkd.main", "--gin_file=digits/ctkd.gin", *quick], tmp_path)
    (run,) = (tmp_path / "runs/digits").glob("*/ctkd-seed0-*")
    names = {path.name for path in run.iterdir()}
    assert {"config.gin", "summary.json", "landscape.png", "student_last.pt"} <= names
    assert json.loads((run / "summary.json").read_text())["teacher_top1"] > 90
    # A longer spelling is the same file, and so the same run: finished.
    again = ["--gin_file=gin/digits/ctkd.gin", *quick]
    assert "nothing is left to train" in call([installed, "-m", "ctkd.main", *again], tmp_path)
    compared = call([ctkd_command, "compare", "runs"], tmp_path)
    assert "digits_teacher → digits_student" in compared
    cells = call([ctkd_command, "sweep", "--sweep=sweeps/digits.gin", "--dry_run"], tmp_path)
    assert len(cells.splitlines()) == 6


def test_all_that_the_package_imports_is_required():
    """The wheel's test borrows packages: this says that they would have been installed."""
    imported = set()
    for path in (ROOT / "ctkd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    foreign = imported - {"ctkd"} - OPTIONAL - sys.stdlib_module_names
    assert {"torch", "gin", "absl", "sklearn"} <= foreign
    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", metadata, re.DOTALL | re.MULTILINE)[1]
    required = {name.lower() for name in re.findall(r'"([A-Za-z][\w-]*)', block)}
    by_import = importlib.metadata.packages_distributions()
    missing = [name for name in foreign if not required & {d.lower() for d in by_import[name]}]
    assert missing == []


def test_the_version_is_in_one_file():
    text = f'"{ctkd.__version__}"'
    for name in ("setup.py", "pyproject.toml", "CITATION.cff", "docs/conf.py"):
        assert text not in (ROOT / name).read_text(encoding="utf-8")


def test_the_citation_names_the_paper():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["license"] == "MIT"
    (paper,) = citation["references"]
    assert paper["title"] == "Curriculum Temperature for Knowledge Distillation"
    assert paper["url"].endswith("/2211.16231")
    assert len(paper["authors"]) == 8
