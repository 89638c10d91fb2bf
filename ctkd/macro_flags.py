"""Flags for what everybody sets: `--epochs 2` is `--gin_param 'epochs = 2'`, without Gin's quotes.

Each flag sets the macro of its name. A value is given as it is: the flag adds the quotes of a text
and the @ of a component.
"""

import re
from collections.abc import Mapping, Sequence

from ctkd.errors import ConfigError

NUMBER, TEXT, COMPONENT = "number", "text", "component"
MACROS = {
    "data_dir": (TEXT, "Where the data set is."),
    "teacher_weights": (TEXT, "The teacher: FILE, a URL, ARCHIVE::MEMBER, FILE::PART."),
    "student": (COMPONENT, "A network by its name, such as resnet20."),
    "teacher": (COMPONENT, "A network by its name, such as resnet56."),
    "epochs": (NUMBER, "How long to train; schedules shorten in proportion."),
    "seed": (NUMBER, "Of the order of images, the first weights, the views."),
    "batch_size": (NUMBER, "Samples of a step, on all GPUs together."),
    "steps_per_epoch": (NUMBER, "Cuts every epoch short, to try things out."),
    "device": (TEXT, "auto, cpu, cuda or cuda:N."),
    "precision": (TEXT, "Of the networks: float32, bfloat16 or float16."),
    "workers": (NUMBER, "Processes that load image files."),
}
SWITCHES = {"trial": "Cut everything to seconds, to try a configuration out."}


def macro_bindings(given: Mapping[str, str | bool | None], params: Sequence[str] = ()) -> list[str]:
    """The Gin bindings of the flags that are given: `epochs = 2`, `data_dir = '/data'`.

    Args:
        given: the value of each flag, None where it is not given.
        params: the bindings of `--gin_param`.

    Raises:
        ConfigError: a value is not of the flag's kind, or `params` sets the same macro.
    """
    named = {match[1] for text in params if (match := re.match(r"\s*(\w+)\s*=", text))}
    bindings = []
    for name, value in given.items():
        if value is None or value is False:
            continue
        if name in named:
            raise ConfigError(f"--{name} and --gin_param set the same macro {name!r}: give one")
        text = "True" if value is True else gin_value(name, str(value))
        bindings.append(f"{name} = {text}")
    return bindings


def gin_value(name: str, value: str) -> str:
    """A flag's value as Gin writes it. Raises ConfigError."""
    kind = MACROS[name][0]
    value = value.strip()
    if value == "None":
        return value
    if kind == NUMBER:
        if not re.fullmatch(r"[+-]?\d[\d_]*", value):
            raise ConfigError(f"--{name}={value}: expected a whole number, as in --{name}=10")
        return value
    if kind == COMPONENT:
        value = value.removeprefix("@")
        if not re.fullmatch(r"[A-Za-z_]\w*", value):
            raise ConfigError(
                f"--{name}={value}: expected the name of a network, as in `ctkd list`"
            )
        return f"@{value}"
    quoted = re.fullmatch(r"(['\"])(.*)\1", value)  # quoted for Gin as well as for the shell
    return repr(quoted[2] if quoted else value)
