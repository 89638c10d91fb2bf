"""What the project's commands have in common: how their flags are read, and their help shown."""

import os
import pathlib
import sys
from collections.abc import Mapping, Sequence

from absl import flags

from ctkd.checks import suggest
from ctkd.errors import ConfigError

PACKAGE = pathlib.Path(__file__).parent
# In a clone the Gin files stand beside the package, in an installed wheel inside it.
ROOT = PACKAGE.parent if (PACKAGE.parent / "gin" / "base.gin").is_file() else PACKAGE


def read_flags(
    values: flags.FlagValues, program: str, arguments: Sequence[str], stray: str
) -> None:
    """Fills `values` anew.

    Args:
        program: the command's name.
        stray: how an argument that is no flag was probably meant, as in "a sweep is given as
            --sweep".

    Raises:
        ConfigError: an unknown flag, a bad value or a stray argument.
    """
    values.unparse_flags()
    try:
        rest = values([program, *arguments], known_only=False)[1:]
    except flags.UnrecognizedFlagError as error:
        hint = suggest(error.flagname, list(values))
        raise ConfigError(f"no flag --{error.flagname}{hint}; --help lists them") from error
    except flags.Error as error:
        raise ConfigError(str(error)) from error
    if rest:
        raise ConfigError(f"{rest[0]!r} is no flag: {stray}={rest[0]}")


def help_text(description: str | None, told: Mapping[str, str]) -> str:
    """A command's description and a line for each of its flags."""
    return "\n".join(
        [description or "", *(f"  --{name:<11} {text}" for name, text in told.items())]
    )


def show(text: str) -> None:
    """Prints what a user may want only the head of: a reader that has seen enough is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        let_go_of_output()


def let_go_of_output() -> None:
    """After a broken pipe: what is left to be flushed goes nowhere, and fails no more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
