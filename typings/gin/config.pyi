from collections.abc import Iterator
from typing import Any

class ConfigurableReference:
    selector: str
    scopes: list[str]
    evaluate: bool

_CONFIG: dict[tuple[str, str], dict[str, Any]]
_FILE_READERS: list[tuple[Any, Any]]

def iterate_references(config: Any, to: Any = ...) -> Iterator[ConfigurableReference]: ...
