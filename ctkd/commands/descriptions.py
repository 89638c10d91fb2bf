"""One line about each registered name, out of docstrings, without importing the name's module.

A module that defines one built-in name describes the name by the first line of its own docstring.
A module of several names describes each by the first line of the class or function.
"""

import ast
import functools
import importlib.util
import inspect
from pathlib import Path

from ctkd.command_line import PACKAGE
from ctkd.registry import COMPONENTS, Registry


def describe(registry: Registry, name: str) -> str:
    """The description of a name of the registry; empty if no docstring is found."""
    module = registry.module_of(name)
    foreign = name in COMPONENTS and not module.startswith(f"{PACKAGE.name}.")
    written = inspect.getdoc(COMPONENTS[name].target) if foreign else ""
    about, names = _docstrings(module)
    own = names.get(name, "") or first_line(written)
    alone = sum(registry.module_of(other) == module for other in registry) == 1
    return (about or own) if alone else (own or about)


def first_line(text: str | None) -> str:
    """The first line of a docstring, without the period at its end."""
    return (text or "").strip().partition("\n")[0].strip().removesuffix(".")


@functools.cache
def _docstrings(module: str) -> tuple[str, dict[str, str]]:
    """The first lines of a module's docstring, and of the docstrings of what it registers."""
    path = _source(module)
    if path is None:
        return "", {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            for decorator in node.decorator_list:
                if (name := _registered(decorator, node.name)) is not None:
                    names[name] = first_line(ast.get_docstring(node))
    return first_line(ast.get_docstring(tree)), names


def _registered(decorator: ast.expr, own: str) -> str | None:
    """The name that `@REGISTRY.register` or `@REGISTRY.register("name")` gives, or None."""
    call = decorator if isinstance(decorator, ast.Call) else None
    function = call.func if call else decorator
    if not (isinstance(function, ast.Attribute) and function.attr == "register"):
        return None
    first = call.args[0] if call and call.args else None
    return str(first.value) if isinstance(first, ast.Constant) else own


def _source(module: str) -> Path | None:
    """The path of a module's source; the module itself is not imported."""
    package, *rest = module.split(".")
    if package == PACKAGE.name:  # without importing the packages between, which import torch
        path = PACKAGE.joinpath(*rest).with_suffix(".py")
        return path if path.is_file() else None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
