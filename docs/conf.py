"""Sphinx's settings: the Markdown pages of this folder, and a reference made of the docstrings.

Docstrings are plain text in which only three things mean something: `backticks`, lists, and the
sections Args, Attributes, Returns, Raises. Stars, bars and final underscores are mathematics and
names (T*, |x|, lambda_), and a block set off by its indentation is shown as it is written. What
follows says so to Sphinx, instead of every docstring saying it in Sphinx's own markup.

New modules need no page: `.. modules:: ctkd.losses` shows whatever is in that package.
"""

import ast
import functools
import importlib
import inspect
import pathlib
import pkgutil
import re
import sys

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from notebook_pages import Notebook

import ctkd

project = "ctkd"
author = copyright = "ctkd contributors"
version = release = ctkd.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3  # links to headings, as on GitHub
exclude_patterns = ["study/*"]
html_theme = "furo"
html_title = f"ctkd {release}"
html_show_sourcelink = False
default_role = "py:obj"  # a link where the name is known, code where it is not
smartquotes = False  # `--dry_run` keeps its two dashes
maximum_signature_line_length = 88
add_module_names = False
suppress_warnings = ["ref.python"]  # a bare `Task` in an annotation: of the engine or of the sweeps
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "special-members": "__call__",
    "show-inheritance": True,
    "ignore-module-all": True,  # what a package offers from below is shown by `_offered`
}
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

_PROTECTED = re.compile(r"(`[^`]*`)")
_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Note)\b.*:$")


@functools.cache
def constants_of(module: str) -> dict[str, list[str]]:
    """The public constants and types that a module's source names: an entry for each.

    autodoc shows none that lack a docstring, and those of other modules too; here the value is the
    source's, and the comment on its line or above it is the text.
    """
    source = inspect.getsource(importlib.import_module(module))
    entries: dict[str, list[str]] = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        value = ast.get_source_segment(source, node.value) if node.value else None
        for name in names:
            if name.startswith("_"):
                continue
            entry = [f".. py:data:: {name}", f"   :module: {module}"]
            if isinstance(node, ast.AnnAssign):
                entry.append(f"   :type: {ast.unparse(node.annotation)}")
            if value and "\n" not in value and len(names) == 1:
                entry.append(f"   :value: {value}")
            entries[name] = [*entry, "", f"   {_escaped(_comment(source, node))}", ""]
    return entries


def _comment(source: str, node: ast.stmt) -> str:
    """What the comments directly above a statement and behind it say."""
    lines = source.splitlines()
    assert node.end_lineno is not None
    said = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.startswith("# "):
            break
        said.insert(0, line[2:])
    behind = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode().strip()
    return " ".join([*said, behind.removeprefix("#").strip()]).strip()


class Modules(SphinxDirective):
    """A section for each module of a package and its sub-packages; of `ctkd` its plain modules."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """See docutils."""
        package = importlib.import_module(self.arguments[0])
        prefix = f"{package.__name__}."
        if package is ctkd:  # each of its sub-packages has a page
            inside = [e for e in pkgutil.iter_modules(ctkd.__path__, prefix) if not e.ispkg]
        else:
            inside = list(pkgutil.walk_packages(package.__path__, prefix))
        found = [package.__name__, *(entry.name for entry in inside)]
        lines: list[str] = []
        for name in found:
            lines += [name, "-" * len(name), ""]
            if missing := _missing_package(name):
                lines += [f"Not shown: {missing} was not installed.", ""]
                continue
            lines += [f".. automodule:: {name}", ""]
            lines += [line for entry in constants_of(name).values() for line in entry]
            lines += _offered(name) if name == package.__name__ else []
        return self.parse_text_to_nodes(StringList(lines, "modules"), allow_section_headings=True)


def _missing_package(module: str) -> str | None:
    """The package that a module imports and that is not installed, such as an adapter's."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return error.name
    return None


def _offered(package: str) -> list[str]:
    """What a package's `__all__` offers that is written in a module below it."""
    module = importlib.import_module(package)
    lines: list[str] = []
    for name in getattr(module, "__all__", []):
        home = getattr(getattr(module, name), "__module__", package)
        if home != package:
            lines += [f".. py:data:: {name}", f"   :module: {package}", ""]
            lines += [f"   `{home}.{name}`", ""]
    return lines


def _skip_constants(
    app: Sphinx, what: str, name: str, value: object, skip: bool, options: object
) -> bool | None:
    """Leaves to `constants_of` what is neither a class nor a function."""
    documented = inspect.isclass(value) or inspect.isroutine(value)
    return True if what == "module" and not documented else None


def _as_written(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Makes Sphinx read a docstring as it was meant; before napoleon, which reads the sections."""
    out: list[str] = []
    block: int | None = None  # the margin that an indented block is set off from
    section = False
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indent <= block:
            block = None
        if block is not None:
            out.append(line)
            continue
        above = next((other for other in reversed(lines[:number]) if other.strip()), "")
        if line.strip() and not indent:
            section = bool(_SECTION.match(line))
        margin = len(above) - len(above.lstrip())
        set_off = number and not lines[number - 1].strip() and indent >= margin + 4
        if line.strip() and set_off and not section:
            block = margin
            out += [" " * margin + "::", "", line]
            continue
        out.append(_escaped(line))
    # napoleon takes the first line of a property for "type: description" where it has a colon; an
    # empty comment before it has none.
    lines[:] = ["..", "", *out] if what in ("property", "attribute") else out


def _escaped(line: str) -> str:
    """Stars, bars, final underscores and name@group mean themselves, outside of backticks."""
    parts = _PROTECTED.split(line)
    for number in range(0, len(parts), 2):
        parts[number] = re.sub(r"([*|]|(?<=\w)@(?=\w))", r"\\\1", parts[number])
        parts[number] = re.sub(r"(\w)_(?=[\s.,;)]|$)", r"\1\\_", parts[number])
        if number:  # `Unit`s: an end of backticks may be followed by a letter
            parts[number] = re.sub(r"^(?=\w)", r"\\ ", parts[number])
    return "".join(parts)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_directive("modules", Modules)
    app.add_directive("notebook", Notebook)
    app.connect("autodoc-skip-member", _skip_constants)
    app.connect("autodoc-process-docstring", _as_written, priority=100)
