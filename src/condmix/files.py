"""Files that appear whole or not at all, whatever stops the process or fills the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; on success it takes its place, on an exception it is removed.

    The name is always the same, so that what a killed process leaves is overwritten by the next one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        with open(part, "rb") as written:
            os.fsync(written.fileno())  # else a power cut could leave the new name on an empty file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8)."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file, indented for people; NaN and infinity, which JSON does not know, are a ValueError."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
