"""Gin files into Gin's state: included files, imported names, and clear messages for mistakes."""

import re
import tokenize
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ctkd.checks import suggest
from ctkd.engine.config.advice import on_gin_error, on_macro, on_no_method, on_unquoted
from ctkd.engine.config.gin_files import GinFile, find, read_with_includes
from ctkd.errors import ConfigError
from ctkd.files import expand_user
from ctkd.registry import GIN_INSTALLED, gin, import_mentioned


def parse(
    files: Sequence[str], bindings: Sequence[str], flag: str = "--gin_param"
) -> tuple[GinFile, ...]:
    """Replaces Gin's configuration by that of `files` (later ones win) and then `bindings`.

    Returns:
        The files that were read, included ones too, in the order in which they take effect.

    Raises:
        ConfigError: a file is missing or includes itself, a syntax error, an unknown name,
            parameter or macro, a macro that no setting refers to.
    """
    if not GIN_INSTALLED:
        raise ConfigError("gin-config is not installed: pip install gin-config")
    paths = [find(expand_user(name, "the Gin file")) for name in files]
    read = tuple(
        replace(file, given=path.stem) for path in paths for file in read_with_includes(path)
    )
    text = re.sub(r"#.*", "", "\\\n".join([*(file.text for file in read), *bindings]))
    import_mentioned(text)
    gin.clear_config()
    # Gin reads each file as it is returned here: with absolute paths in its includes. Its own
    # search would begin in the working directory, and go through all importable packages.
    texts = {str(file.path): file for file in read}
    gin.config._FILE_READERS[:] = [(lambda path: texts[path].open(), texts.__contains__)]
    for path in paths:
        _translated(gin.parse_config_file, str(path), str(path))
    for binding in bindings:
        _translated(gin.parse_config, binding, f"{flag} {binding!r}", on_unquoted(binding, flag))
    if flag == "--gin_param" and read and not _chooses_method():
        raise ConfigError(f"{on_no_method(read)}; `ctkd list methods` shows all")
    _check_macros(text, bindings)
    _check_scopes()
    return read


def _translated(
    parser: Callable[[str], Any], source: str, name: str, quoting: str | None = None
) -> None:
    """Calls one of Gin's parsers; its many kinds of exception become one, with advice.

    Args:
        quoting: the advice for a syntax error, where it is known.
    """
    try:
        parser(source)
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise ConfigError(f"{name}: {on_gin_error(str(error))}") from error
    except (SyntaxError, tokenize.TokenError) as error:
        token = re.search(r"Failed to parse token '(.*)' \(.*?(line \d+)", str(error))
        if quoting is not None:
            what = quoting
        elif token:  # Gin's own words here are those of Python's ast module
            what = (
                f"{token[2]}: {token[1]!r} is not a value (a text needs quotes, a component an @)"
            )
        else:
            what = on_gin_error(str(error))
        raise ConfigError(f"{name}: syntax error: {what}") from error


def _chooses_method() -> bool:
    """Whether the configuration that Gin has parsed binds Method.objective."""
    config: dict[tuple[str, str], Any] = gin.config._CONFIG
    bound = {selector.rpartition(".")[2]: values for (_, selector), values in config.items()}
    return "objective" in bound.get("Method", {})


def _check_macros(text: str, bindings: Sequence[str]) -> None:
    """Refuses a macro that is used but not set, and a macro of `bindings` that `text` ignores.

    A file may set macros that a run does not need: a pair's file sets those of several methods.
    """
    config: dict[tuple[str, str], Any] = gin.config._CONFIG
    defined = {scope for scope, selector in config if selector == "gin.macro"}
    used = {
        reference.scopes[-1]
        for reference in gin.config.iterate_references(config)
        if reference.selector.endswith("gin.macro") and reference.scopes
    }
    for name in sorted(used - defined):
        raise ConfigError(f"the macro %{name} is used but never set{suggest(name, defined)}")
    matches = (re.match(r"\s*(\w+)\s*=\s*(.*)", text) for text in bindings)
    given = {match[1]: match[2] for match in matches if match}
    for name in sorted(set(given) - set(re.findall(r"%(\w+)", text))):
        hint = on_macro(name, given[name], used, re.findall(r"\w+", text))
        raise ConfigError(f"nothing refers to the macro {name!r}{hint}")


def _check_scopes() -> None:
    """Refuses @scope/Name: a run has each component once, and would not record what is scoped."""
    for reference in gin.config.iterate_references(gin.config._CONFIG):
        module, _, name = reference.selector.rpartition(".")
        if reference.scopes and module != "gin":  # which macros and constants are of
            raise ConfigError(
                f"{reference}: Gin's scopes are not used here: say @{name}, and bind {name}'s own "
                "parameters"
            )


def macros(names: Sequence[str]) -> dict[str, Any]:
    """The values of those of the macros `names` that the configuration sets."""
    config: dict[tuple[str, str], Any] = gin.config._CONFIG
    found = {name: config.get((name, "gin.macro")) for name in names}
    return {name: entry["value"] for name, entry in found.items() if entry is not None}
