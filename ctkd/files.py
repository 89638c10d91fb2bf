"""Files that are replaced whole: nobody meets half of one, whatever happens while it is written."""

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

LEFTOVER = re.compile(r"\..+\.\d+\.\d+\.tmp")  # of a process that was killed while it wrote


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write; at the end it takes the place of `path`.

    After an error `path` is as it was, and nothing lies beside it.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
