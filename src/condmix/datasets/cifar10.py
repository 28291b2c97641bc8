"""CIFAR-10: 50,000 training and 10,000 test pictures of ten classes, 32x32 (Krizhevsky, 2009)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from . import Dataset
from ._cifar_format import CifarArchive


class Cifar10(Dataset):
    """Reads cifar-10-python.tar.gz as its authors publish it; a picture's id is its place in the split."""

    def __init__(self, archives: Path, settings: dict):
        super().__init__(archives, settings)
        self._archive = CifarArchive(self.archives)

    @property
    def class_names(self) -> list[str]:
        return self._archive.class_names

    def ids(self, split: str) -> list[int]:
        return list(range(len(self._archive.split(split)[1])))

    def images(self, split: str) -> Iterator[np.ndarray]:
        yield from self._archive.split(split)[0]

    def labels(self, split: str) -> np.ndarray:
        return self._archive.split(split)[1]
