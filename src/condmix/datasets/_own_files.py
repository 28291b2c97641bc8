"""Data of one's own: which files a folder holds, and what its data sets share."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from condmix import CondmixError
from condmix.files.pictures import decode, is_picture

from . import Dataset
from ._splits import held_out_percent


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


class PictureFiles(Dataset, ABC):
    """A data set of picture files. A subclass knows which are of which split, and their classes."""

    @property
    @abstractmethod
    def _splits(self) -> dict[str, list[Any]]:
        """The pictures of each split."""

    @staticmethod
    def check_settings(settings: dict) -> None:
        held_out_percent(settings)

    def ids(self, split: str) -> list[int]:
        return list(range(len(self._splits[split])))

    @abstractmethod
    def files(self, split: str, rows: slice = slice(None)) -> Iterator[tuple[str, bytes]]:
        """Each picture's name and its file as it is, in the order of `ids`."""

    def images(self, split: str) -> Iterator[np.ndarray]:
        for decoder in self.decoders(split):
            yield decoder()

    def decoders(self, split: str, rows: slice = slice(None)) -> Iterator[Callable[[], np.ndarray]]:
        for name, payload in self.files(split, rows):
            yield partial(decode, payload, self._full_name(name))

    def labels(self, split: str) -> np.ndarray | None:
        if not self.class_names:
            return None
        numbers: dict[str | None, int] = {name: number for number, name in enumerate(self.class_names)}
        return np.array([numbers.get(self._class_of(picture), -1) for picture in self._splits[split]], np.int64)

    @abstractmethod
    def _class_of(self, picture: Any) -> str | None:
        """The name of a picture's class, if it has one."""

    @abstractmethod
    def _full_name(self, name: str) -> str:
        """Where the picture of this name lies, for messages."""
