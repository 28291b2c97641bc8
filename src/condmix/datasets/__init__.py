"""Data sets: official archives -> pictures, labels and captions.

One file per data set, its name is the value of `data.dataset`: `coco.py` holds the class `Coco`. Files that
start with an underscore are shared by the plug-ins of this package. Splits are always "train" and "test".
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from condmix import CondmixError

SPLITS = ("train", "test")


class Dataset:
    """What every data set offers; a plug-in overrides what its data has.

    A data set that needs no download also has `draw(archives: Path, settings: dict)`, which writes its files.
    """

    attributes: dict[str, list[str]] = {}  # name -> values, in column order; empty where they are not known
    every_answer_counts = False  # True: captions are answers of several people, and equal ones of a picture are kept

    def __init__(self, archives: Path, settings: dict):
        """`archives` holds the official files; `settings` are the profile's `data.world`, often empty."""
        self.archives = Path(archives)
        self.settings = settings

    @property
    def class_names(self) -> list[str]:
        """Empty where the data has no classes."""
        return []

    @staticmethod
    def check_settings(settings: dict) -> None:
        """CondmixError where `data.world` has what this data set does not take."""
        if settings:
            raise CondmixError(f"data.world takes no settings here, given: {settings}; write `world: {{}}`")

    def ids(self, split: str) -> list[int]:
        """Each picture's number; every other method keeps this order."""
        raise NotImplementedError

    def images(self, split: str) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 RGB arrays at the archive's resolution, one at a time."""
        raise NotImplementedError

    def decoders(self, split: str, rows: slice = slice(None)) -> Iterator[Callable[[], np.ndarray]]:
        """For each picture of these rows what returns it as `images` does, in any thread: decoding is what costs.

        A data set of picture files overrides this, so that rows before the first are neither read nor decoded.
        """
        for image in islice(self.images(split), rows.start, rows.stop):
            yield partial(np.asarray, image)  # itself

    def labels(self, split: str) -> np.ndarray | None:
        """(N,) int64 index into `class_names`, -1 where unknown; None without classes."""
        return None

    def captions(self, split: str) -> list[list[str]] | None:
        """Human captions of each picture, read without decoding a picture; None where the data has none."""
        return None

    def attribute_values(self, split: str) -> np.ndarray | None:
        """(N, A) int64 index into the values of each attribute; None where they are not known."""
        return None

    def mentions(self, split: str) -> np.ndarray | None:
        """(N, captions, A) bool: which attributes a caption names; None where that is not known."""
        return None

    def held_out(self, split: str) -> np.ndarray | None:
        """(N,) bool: whose combination of attributes no training picture shows; None where none was held out so."""
        return None

    def claims(self, caption: str) -> list[int] | None:
        """The value that any caption, whoever wrote it, names of each attribute (A,), -1 where none.

        None where the data's attributes are not known.
        """
        return None
