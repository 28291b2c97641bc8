"""MS-COCO 2017: 118,287 training and 5,000 validation pictures, five human captions each (Lin et al., 2014).

With `data.world: {unlabeled: 1}` its 123,403 unlabeled pictures train as well: they have neither captions nor classes.
"""

from collections.abc import Callable, Iterator

import numpy as np

from condmix import CondmixError

from . import SPLITS, Dataset
from ._coco_format import CocoArchive


class Coco(Dataset):
    """Reads the official zips; test is val2017. Classes are there where the instances files are."""

    @staticmethod
    def check_settings(settings: dict) -> None:
        if settings.keys() - {"unlabeled"}:
            raise CondmixError(f"data.world takes unlabeled (1 trains on unlabeled2017.zip too), given: {settings}")

    def __init__(self, archives, settings):
        super().__init__(archives, settings)
        self._archive = CocoArchive(self.archives, unlabeled=bool(settings.get("unlabeled")))

    @property
    def class_names(self) -> list[str]:
        return self._archive.class_names

    def ids(self, split: str) -> list[int]:
        return self._archive.ids(split)

    def images(self, split: str) -> Iterator[np.ndarray]:
        return self._archive.images(split)

    def decoders(self, split: str, rows: slice = slice(None)) -> Iterator[Callable[[], np.ndarray]]:
        return self._archive.decoders(split, rows)

    def files(self, split: str) -> Iterator[tuple[str, bytes]]:
        return self._archive.files(split)

    def labels(self, split: str) -> np.ndarray | None:
        return self._archive.labels(split)

    def captions(self, split: str) -> list[list[str]]:
        return self._archive.captions(split)

    def passed_over(self) -> Iterator[tuple[str, str]]:
        """(what it is, where it is) of what is there and not read."""
        for split in SPLITS:
            for where in self._archive.strays(split):
                yield "caption whose picture is not there", where
