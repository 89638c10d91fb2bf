"""What a run is called: its method; and which settings of earlier Gin files a later method undoes.

A method's file is one that sets `Method.objective`, itself or through what it includes. Files of
pairs, a sample's file and a user's own settings set none.
"""

import re
from collections.abc import Sequence

from ctkd.engine.config.gin_files import GinFile

# What a method's file undoes if it is given after another file: a setting by its macro, or itself.
COMPARED = {
    "Method.objective": "the objective",
    "Method.policy": "the temperature policy",
    "Method.transform": "the transform",
    "student": "the student",
    "teacher": "the teacher",
    "epochs": "the epochs",
}
_BINDING = re.compile(r"^\s*([\w.]+)\s*=\s*([^#\n]+)", re.MULTILINE)


def name_of_run(files: Sequence[GinFile], bindings: Sequence[str] = ()) -> str:
    """The stem of the last method's file, and what later files and bindings change of the method.

    Args:
        files: as `parse` returns them.
        bindings: those of the command line, such as "Method.policy = @GlobalTemperature".
    """
    given = _given(files)
    name = next(iter(given), "run")
    for stem, values in given.items():
        if "Method.objective" in values:
            name = stem
        elif any(setting.startswith("Method.") for setting in values):
            name += f"+{stem}"
    changed = {name: value for text in bindings for name, value in _values(text).items()}
    own = {k: v for k, v in changed.items() if k.startswith("Method.")}
    before = {k: v for values in given.values() for k, v in values.items()}
    more = [v.removeprefix("@") for k, v in own.items() if before.get(k) != v]
    return "+".join([name, *more])


def undone(files: Sequence[GinFile]) -> list[str]:
    """A warning for each setting of a given file that a method's file after it replaces."""
    found = []
    before: dict[str, tuple[str, str]] = {}
    for stem, values in _given(files).items():
        if "Method.objective" in values:
            for setting, what in COMPARED.items():
                old, source = before.get(setting, ("", ""))
                new = values.get(setting, "None" if setting.startswith("Method.") else old)
                if old and new != old:
                    found.append(
                        f"{stem}.gin, given after {source}.gin, changes {what} from {old} to "
                        f"{new}: to keep {old}, give {source}.gin last"
                    )
        before |= {setting: (value, stem) for setting, value in values.items()}
    return found


def several_methods(files: Sequence[GinFile]) -> str:
    """What to give instead of the files of several methods, for a message; empty for one method."""
    own = {file.given: file for file in files if file.path.stem == file.given}
    stems = [stem for stem, values in _given(files).items() if "Method.objective" in values]
    names = [stem for stem in stems if stem in own]
    if len(names) < 2:
        return ""
    last = own[names[-1]]
    orders = ("_".join(names), "_".join(reversed(names)))
    joint = [path for name in orders if (path := last.path.with_name(f"{name}.gin")).is_file()]
    both = "".join(f", or --gin_file={GinFile(path, '')} for both" for path in joint)
    listed = " and ".join(str(own[name]) for name in names)
    return f". {listed} are {len(names)} methods: give one, such as --gin_file={last}{both}"


def _given(files: Sequence[GinFile]) -> dict[str, dict[str, str]]:
    """The settings that each file of the command line makes, with what it includes, by its stem."""
    given: dict[str, dict[str, str]] = {}
    for file in files:
        given.setdefault(file.given or file.path.stem, {}).update(_values(file.text))
    return given


def _values(text: str) -> dict[str, str]:
    return {name: value.strip() for name, value in _BINDING.findall(text)}
