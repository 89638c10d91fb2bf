"""The documentation: built without a warning; every public name is in its reference."""

import ast
import html
import importlib.util
import pathlib
import pkgutil
import re
import subprocess
import sys
import zlib

import pytest

import ctkd

ROOT = pathlib.Path(__file__).parents[2]
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields)\b.*:$", re.MULTILINE)

# One process for all: the pages are built once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("reference")]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The folder of the reference, in that of all built pages."""
    if importlib.util.find_spec("myst_parser") is None:
        pytest.skip("sphinx and myst-parser are not installed: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("reference")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs"]
    done = subprocess.run(
        [*command, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    return folder / "reference"


@pytest.fixture(scope="module")
def shown(pages):
    """All text of the pages' articles, white space collapsed."""
    articles = [
        text[text.index("<article") : text.index("</article>")]
        for path in pages.glob("*.html")
        if "<article" in (text := path.read_text(encoding="utf-8"))
    ]
    return plain(html.unescape(re.sub(r"<[^>]+>", "", "\n".join(articles))))


def plain(text):
    return " ".join(text.split())


def sources():
    """Each module's name and syntax tree, found by walking the package."""
    found = ["ctkd", *(m.name for m in pkgutil.walk_packages(ctkd.__path__, "ctkd."))]
    for name in found:
        path = pathlib.Path(importlib.util.find_spec(name).origin)
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def public(body, owner):
    """The public names that a module's or a class's statements make, with their nodes."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_") or node.name == "__call__":
                yield f"{owner}.{node.name}", node
                if isinstance(node, ast.ClassDef):
                    yield from public(node.body, f"{owner}.{node.name}")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name) and not part.id.startswith("_"):
                        yield f"{owner}.{part.id}", node


def inventory(path):
    """The names that Sphinx's inventory lists, with what they are; its format is version 2."""
    data = path.read_bytes()
    *_, rest = data.split(b"\n", 4)
    lines = zlib.decompress(rest).decode().splitlines()
    return {name: kind for name, kind, *_ in (line.split(" ", 2) for line in lines)}


def test_every_public_name_is_in_it(pages):
    listed = inventory(pages.parent / "objects.inv")
    in_python = {name for name, kind in listed.items() if kind.startswith("py:")}
    expected = set()
    for module, tree in sources():
        expected |= {module, *(name for name, node in public(tree.body, module))}
    assert len(expected) > 1000
    assert sorted(expected - in_python) == []
    for package in ("ctkd", "ctkd.losses", "ctkd.temperature"):  # what they offer from below
        offered = getattr(importlib.import_module(package), "__all__")  # noqa: B009
        assert {f"{package}.{name}" for name in offered if name[0] != "_"} <= in_python


def test_each_docstring_is_shown_as_it_stands(shown):
    """Equations, stars and bars included; of its sections Sphinx makes lists."""
    count, missing = 0, []
    for module, tree in sources():
        nodes = [node for _, node in public(tree.body, module) if hasattr(node, "body")]
        for node in (tree, *nodes):
            text = SECTION.split(ast.get_docstring(node) or "")[0]
            for part in re.split(r"\n\n|\n(?=- )|^- ", text):
                text_shown = plain(part.replace("`", "").removeprefix("- "))
                count += 1
                if text_shown not in shown:
                    missing.append(f"{module}: {text_shown}")
    assert count > 800
    assert missing == []


def test_a_name_with_an_at_is_no_address(pages):
    assert not [page for page in pages.glob("*.html") if "mailto:" in page.read_text("utf-8")]


def test_equations_set_off_keep_their_lines(pages):
    blocks = re.findall(r"<pre>(.*?)</pre>", (pages / "losses.html").read_text(), re.DOTALL)
    text = "\n".join(html.unescape(re.sub(r"<[^>]+>", "", block)) for block in blocks)
    assert "∂L/∂z_s = T (q − p)\n" in text
    assert "∂L/∂T   = 2T · KL − (E_q z_s − E_p z_s) + Cov_p(z_t, z_s − z_t) / T\n" in text
