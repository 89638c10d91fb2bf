"""The layout of the package: names that stand for one thing, files of readable size, the map."""

import ast
import collections
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "ctkd"
MODULES = sorted(PACKAGE.rglob("*.py"))
LINES = 280


def repeated(pairs):
    """The names that stand for more than one path."""
    found = collections.defaultdict(list)
    for name, path in pairs:
        found[name].append(str(path.relative_to(ROOT)))
    return {name: paths for name, paths in found.items() if len(paths) > 1}


def test_no_two_modules_share_a_name():
    assert not repeated((path.stem, path) for path in MODULES if path.stem[:2] != "__")


def test_no_two_public_classes_share_a_name():
    classes = (
        (node.name, path)
        for path in MODULES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not repeated(classes)


def test_files_are_short_enough_to_read():
    folders = (PACKAGE, ROOT / "launchers", ROOT / "tools", ROOT / "tests")
    long = {
        str(path.relative_to(ROOT)): count
        for folder in folders
        for path in folder.rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LINES
    }
    assert not long


def test_package_files_hold_a_docstring_and_public_names_only():
    for path in PACKAGE.rglob("__init__.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        kinds = {type(node) for node in tree.body}
        assert kinds <= {ast.Expr, ast.Import, ast.ImportFrom, ast.If, ast.Assign}, path


def test_the_map_covers_every_folder():
    page = (ROOT / "BUILD.md").read_text(encoding="utf-8")
    table = re.search(r"\| folder or file \|.*?\n\n", page, re.DOTALL)[0]
    named = re.findall(r"`([\w./]+)`", table)
    folders = {str(p.parent.relative_to(ROOT)) + "/" for p in PACKAGE.rglob("__init__.py")}
    folders -= {"ctkd/", "ctkd/engine/", "ctkd/results/"}  # rows for what is inside them
    assert folders <= set(named), folders - set(named)
    for name in named:
        if name.startswith("ctkd/") or name.endswith("/"):
            assert (ROOT / name).exists(), name
