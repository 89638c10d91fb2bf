"""What the project's commands share: reading flags and paths, showing a help text."""

import argparse
import pathlib
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence

from absl import flags

from ctkd.checks import suggest
from ctkd.errors import ConfigError, UserError
from ctkd.files import user_path
from ctkd.standard_output import check_output, safe_output

PACKAGE = pathlib.Path(__file__).parent
# A clone has the folder gin/ next to the package, an installed wheel has it in the package.
ROOT = PACKAGE.parent if (PACKAGE.parent / "gin" / "base.gin").is_file() else PACKAGE


def read_flags(
    values: flags.FlagValues, program: str, arguments: Sequence[str], stray: str
) -> None:
    """Resets `values`, then sets them from `arguments`.

    Args:
        program: the command's name.
        stray: the advice for an argument that is not a flag: "a sweep is given as --sweep".

    Raises:
        ConfigError: an unknown flag, a bad value or a stray argument.
    """
    values.unparse_flags()
    if split := _split_binding(arguments):
        raise ConfigError(f"a binding with spaces needs quotes: {split}")
    try:
        rest = values([program, *arguments], known_only=False)[1:]
    except flags.UnrecognizedFlagError as error:
        hint = suggest(error.flagname, list(values), prefix="--")
        if not hint and "gin_param" in values:
            hint = "; other settings are given so: --gin_param 'SGD.lr = 0.1';"
        raise ConfigError(f"no flag --{error.flagname}{hint} --help lists the flags") from error
    except flags.Error as error:
        raise ConfigError(str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the file of --flagfile is not a text: {error}") from error
    if rest:
        raise ConfigError(f"{rest[0]!r} is not a flag: {stray}={rest[0]}")


def _split_binding(arguments: Sequence[str]) -> str | None:
    """The flag and the quoted binding, if a shell split one at spaces: `--gin_param seed = 1`."""
    pattern = r"(--?(?:gin|sweep)_param)[ =]([\w.]+) ?= ?(\S+)"
    for flag, name, value in re.findall(pattern, " ".join(arguments)):
        whole = re.compile(rf"{re.escape(name)} ?= ?{re.escape(value)}")
        if not any(map(whole.search, arguments)):
            return f'{flag} "{name} = {value}"'
    return None


def help_text(description: str | None, texts: Mapping[str, str]) -> str:
    """A command's description and a line for each of its flags."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 100)
    margin = " " * 20
    lines = [
        textwrap.fill(f"  --{name:<16}{text}", width, subsequent_indent=margin)
        for name, text in texts.items()
    ]
    return "\n".join([description or "", *lines])


def path_argument(text: str) -> pathlib.Path:
    """The type of path arguments for argparse; a tilde for the home directory is expanded.

    A shell expands it in `--out ~/x`, not in `--out=~/x`.
    """
    try:
        return user_path(text, "path")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run_tool(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    run: Callable[[argparse.Namespace], object],
    errors: tuple[type[Exception], ...] = (UserError, OSError),
) -> int:
    """Runs a subcommand on its arguments; returns the exit status.

    Of `errors` the user sees the message, on standard error: the status is then 2, otherwise 0.
    """
    with safe_output():
        options = parser.parse_args(arguments)
        try:
            run(options)
        except errors as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            return 2
        return 0


def show(text: str) -> None:
    """Prints the product of a command: a help text, a configuration, a table.

    Raises:
        OutputError: standard output cannot be written. A pipe that its reader closed is
            not an error.
    """
    with safe_output():
        print(text)
        check_output()
