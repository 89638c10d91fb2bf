"""Small files that several processes share: written whole, so that nobody meets half of one.

Nothing here imports torch: a task writes its first note before that.
"""

import json
from pathlib import Path
from typing import Any

from ctkd.files import replacing


def write_whole(path: Path, text: str) -> None:
    """Replaces `path` by `text`; a reader never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none, or none that can be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
