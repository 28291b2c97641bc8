"""Folders of one's own: which files they hold."""

import os
from collections.abc import Iterator
from pathlib import Path

from condmix import CondmixError


def walk(folder: Path) -> Iterator[str]:
    """The paths of all files below the folder but hidden ones, with forward slashes; CondmixError for unreadable."""

    def unreadable(error: OSError) -> None:  # else os.walk passes over it in silence
        raise CondmixError(f"{error.filename} can't be read ({error.strerror})") from error

    for place, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in folders:
            if os.path.islink(os.path.join(place, name)):
                raise CondmixError(f"{place}/{name} links to a folder, into which DVC does not look: move it there")
        for name in files:
            if not is_hidden(name):
                yield Path(place, name).relative_to(folder).as_posix()


def is_hidden(name: str) -> bool:
    """macOS leaves ._1.jpg beside 1.jpg, and __MACOSX/ in its zips."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
