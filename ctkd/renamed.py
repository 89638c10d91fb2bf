"""Parameters that were renamed: the old name works for one release, with a warning."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# The old name of a parameter in Gin files and in `settings.json`, and its new one.
RENAMED = {
    "Teacher.floor": "Teacher.min_accuracy",
    "Teacher.claimed": "Teacher.published_accuracy",
}
LAST = "0.2"  # the last version that accepts the old names


def with_new_names(text: str, where: str) -> tuple[str, tuple[str, ...]]:
    """Gin text whose bindings have the new names, and a warning for each old name in it.

    Args:
        where: the file or the flag that the text comes from, for the warnings.
    """
    warnings = []
    for old, new in RENAMED.items():
        binding = re.compile(rf"^(\s*){re.escape(old)}(?=\s*=)", re.MULTILINE)
        text, count = binding.subn(rf"\g<1>{new}", text)
        if count:
            warnings.append(
                f"{where}: {old} is now called {new}; the old name works up to version {LAST}"
            )
    return text, tuple(warnings)


def bindings_with_new_names(
    bindings: Sequence[str], flag: str = "--gin_param"
) -> tuple[list[str], tuple[str, ...]]:
    """The same for the bindings of a command line."""
    pairs = [with_new_names(binding, f"{flag} {binding!r}") for binding in bindings]
    return [text for text, _ in pairs], tuple(w for _, warnings in pairs for w in warnings)


def keys_with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """One set of `settings.json` under the new names."""
    return {RENAMED.get(name, name): value for name, value in values.items()}
