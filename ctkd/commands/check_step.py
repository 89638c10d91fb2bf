"""Checks a training step of CTKD, in any code base, against the paper's equations.

    ctkd check my_module:make_step

`make_step()` returns a `ctkd.testing.TrainingStep`. Modules of the working directory are found
too. The page docs/check.md has an example and a table of all faults.

Exit status: 0 if all checks pass, 1 if a check fails, 2 if the step cannot be made or called.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ctkd.command_line import show
from ctkd.errors import ConfigError
from ctkd.standard_output import safe_output


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the step; returns the exit status."""
    with safe_output():
        given = make_parser().parse_args(arguments).step
        try:
            return _check(given, _function(given))
        except ConfigError as error:
            print(f"ctkd check: {error}", file=sys.stderr)
            return 2


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="ctkd check",
        description="Checks a training step of CTKD against the paper's equations.",
    )
    parser.add_argument("step", metavar="MODULE:FUNCTION", help="makes a TrainingStep")
    return parser


def _function(given: str) -> Callable[[], Any]:
    """The function that `given` names.

    Raises:
        ConfigError: there is no such module or function, or the module cannot be imported.
    """
    module, colon, name = given.partition(":")
    if not (module and colon and name):
        raise ConfigError(f"{given!r}: expected MODULE:FUNCTION, such as my_module:make_step")
    if module.endswith(".py") or os.sep in module:
        dotted = module.removesuffix(".py").replace(os.sep, ".")
        raise ConfigError(f"{given!r} has the path of a file: give the module, {dotted}:{name}")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (Exception, SystemExit) as error:  # the user's module may raise anything, or parse flags
        raise ConfigError(f"{module} cannot be imported: {_named(error)}") from error
    if not callable(found):
        raise ConfigError(f"{module} has no function {name!r}")
    made: Callable[[], Any] = found
    return made


def _check(given: str, make_step: Callable[[], Any]) -> int:
    """Prints the faults, or that there are none."""
    from ctkd.testing.ctkd_contract import examine
    from ctkd.testing.training_step import TrainingStep

    try:
        made = make_step()
        if not isinstance(made, TrainingStep):
            kind = type(made).__name__
            raise ConfigError(f"{given} returns a {kind}: expected a ctkd.testing.TrainingStep")
        faults = examine(make_step)
    except ConfigError:
        raise
    except Exception as error:  # the user's step may raise anything
        raise ConfigError(f"{given} cannot be checked: {_named(error)}") from error
    if not faults:
        without = [
            name for name in ("set_lambda", "set_epoch", "ignore_index") if _lacks(made, name)
        ]
        note = f" (not checked, since they are not given: {', '.join(without)})" if without else ""
        show(f"{given}: all checks pass{note}")
        return 0
    lines = [f"{given}: {len(faults)} fault{'s' if len(faults) > 1 else ''}"]
    for fault in faults:
        lines += ["", fault.name, f"  what   {fault.wrong}", f"  effect {fault.effect}"]
        lines += [f"  cure   {fault.cure}"]
    show("\n".join(lines))
    return 1


def _lacks(step: Any, name: str) -> bool:
    return getattr(step, name) is None


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
