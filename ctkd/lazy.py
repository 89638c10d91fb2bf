"""Public names that are imported when first used, so that `--help` pays for none of them."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, origins: Mapping[str, str]) -> Callable[[str], Any]:
    """A module-level `__getattr__` for `package` (PEP 562); `origins` maps names to modules."""

    def get(name: str) -> Any:
        if name not in origins:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(origins[name]), name)

    return get
