"""Folders of one's own: which files they hold."""

import os
from collections.abc import Iterator
from pathlib import Path

from condmix import CondmixError
from condmix.files.pictures import is_picture


def walk(folder: Path) -> Iterator[str]:
    """The paths of all files below the folder but hidden ones, with forward slashes.

    CondmixError where one can't be read, and for a folder that is a link, or is named like a picture or a .jsonl file.
    """

    def unreadable(error: OSError) -> None:  # else os.walk passes over it in silence
        raise CondmixError(f"{error.filename} can't be read ({error.strerror})") from error

    for place, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in folders:
            if os.path.islink(os.path.join(place, name)):
                raise CondmixError(f"{place}/{name} links to a folder, into which DVC does not look: move it there")
            if is_picture(name) or name.endswith(".jsonl"):
                raise CondmixError(f"{place}/{name} is a folder, but is named like a file: rename it")
        for name in files:
            if not is_hidden(name):
                yield Path(place, name).relative_to(folder).as_posix()


def is_hidden(name: str) -> bool:
    """macOS leaves ._1.jpg beside 1.jpg, and __MACOSX/ in its zips."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
