"""Advice after the messages of Gin: the nearest valid names, and the quotes that a text needs."""

import inspect
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from ctkd.checks import suggest
from ctkd.engine.config.gin_files import GinFile
from ctkd.macro_flags import MACROS, NUMBER
from ctkd.registry import COMPONENTS, REGISTRIES

# A value that a user means as a text: a path, a URL, a name.
_TEXT = re.compile(r"\s*([\w.]+)\s*=\s*([A-Za-z~./][^'\"=(){}\[\],]*?)\s*")


def on_gin_error(message: str) -> str:
    """Gin's message with the nearest valid names after its first sentence."""
    sentence, _, quoted = message.partition("\n")
    advice = ""
    unknown = re.match(r"No configurable matching (?:reference )?'@?([\w./]+)", sentence)
    parameter = re.match(r"Configurable '(\w+)' doesn't have a parameter named '(\w+)'", sentence)
    if unknown and unknown[1] in ("Sweep", "Resources"):
        advice = ": this is the file of a sweep, to be given as ctkd sweep --sweep FILE"
    elif unknown:
        names = {name for registry in REGISTRIES for name in registry}
        sentence = f"nothing is named {unknown[1]!r}"
        advice = suggest(unknown[1].rpartition("/")[2], names) or "; `ctkd list` shows all names"
    elif parameter and parameter[1] in COMPONENTS:
        sentence = f"{parameter[1]} has no parameter {parameter[2]!r}"
        valid = list(inspect.signature(COMPONENTS[parameter[1]].target).parameters)
        advice = f"{suggest(parameter[2], valid)} (it has {', '.join(valid)})"
    # Gin points into the line at fault: the line is kept, the pointer is not.
    lines = [line for line in quoted.split("\n") if line.strip(" ^")]
    quoted = "" if "bindings string" in quoted else "".join(f"\n{line}" for line in lines)
    return f"{sentence.rstrip('.')}{advice}{quoted}"


def on_unquoted(binding: str, flag: str) -> str | None:
    """How a binding is written whose text lacks quotes, or whose component lacks its @."""
    found = _TEXT.fullmatch(binding)
    if found is None:
        return None
    name, value = found.groups()
    if any(value in registry for registry in REGISTRIES):
        return f"a component needs an @: {flag} '{name} = @{value}'"
    if MACROS.get(name, ("",))[0] == NUMBER:
        return f"expected a whole number, as in --{name}=10"
    shorter = f", or --{name}={shlex.quote(value)}" if name in MACROS else ""
    return f"a text needs quotes: {flag} \"{name} = '{value}'\"{shorter}"


def on_macro(name: str, value: str, used: Iterable[str], mentioned: Iterable[str]) -> str:
    """How to bind the settings that have a parameter of this name; or the macros nearest to it."""
    words = set(mentioned)
    owners = sorted(
        owner
        for owner, component in COMPONENTS.items()
        if (owner in words or component.kind == "engine part")
        and name in inspect.signature(component.target).parameters
    )
    if owners:
        return ": give " + " or ".join(
            f"--gin_param {shlex.quote(f'{owner}.{name} = {value}')}" for owner in owners
        )
    return suggest(name, used) or ": this configuration has no such setting"


def on_no_method(files: Sequence[GinFile]) -> str:
    """Which method's file to give with files that choose none: base.gin, a sample, a pair."""
    given = [file for file in files if file.path.stem == file.given]
    last = given[-1]
    if last.path.stem == "base":
        instead = _methods_near(last.path) or "gin/digits/ctkd.gin"
        return f"{last} chooses no method. Give a method's file instead, --gin_file={instead}"
    pair = last.path.parent.name == "pairs"
    folder = last.path.parent if pair else last.path
    method = _methods_near(folder) or "gin/digits/ctkd.gin"
    return (
        f"{last} chooses no method. Give a method's file before it: --gin_file={method} "
        f"--gin_file={last}"
    )


def _methods_near(path: Path) -> str | None:
    """The method ctkd.gin in the folder of a file of ctkd, or None."""
    found = path.with_name("ctkd.gin")
    return str(GinFile(found, "")) if found.is_file() else None
