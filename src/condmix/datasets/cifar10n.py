"""CIFAR-10N (Wei et al. 2022, arXiv:2110.12088): CIFAR-10's training pictures, each of them named by three people.

    cifar-10-python.tar.gz  CIFAR-10's own archive; its test pictures, which nobody named anew, are left out
    CIFAR-10_human.pt       the people's labels, as the authors of CIFAR-10N publish them

captions 1 to 3  the class that each of three people saw, as a word; who is first says nothing
class            the official label

Held out are `held_out_percent` of the pictures, chosen by the hash of their places in the archive, so people err alike
in both splits. A picture's id is its place.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from condmix import CondmixError

from . import Dataset
from ._archives import open_zip, read_member
from ._cifar_format import CifarArchive, unpickle
from ._splits import held_out_percent, scattered

LABELS = "CIFAR-10_human.pt"
PEOPLE = ("random_label1", "random_label2", "random_label3")
OFFICIAL = "clean_label"


class Cifar10n(Dataset):
    """Reads both files in place. `settings`: {"held_out_percent": 1 to 99}."""

    every_answer_counts = True

    def __init__(self, archives: Path, settings: dict):
        super().__init__(archives, settings)
        self._archive = CifarArchive(self.archives)

    @staticmethod
    def check_settings(settings: dict) -> None:
        if held_out_percent(settings) is None:
            raise CondmixError("data.world needs held_out_percent, from 1 to 99: CIFAR-10N has training pictures only")

    @property
    def class_names(self) -> list[str]:
        return self._archive.class_names

    @cached_property
    def _people(self) -> np.ndarray:
        """What three people saw in each of the archive's training pictures (N, 3)."""
        path = self.archives / LABELS
        labels = read_labels(path)
        official = self._archive.split("train")[1]
        if not np.array_equal(labels[OFFICIAL], official):
            raise CondmixError(
                f"{path} is not of the pictures in {self._archive.path}: its {OFFICIAL} has "
                f"{len(labels[OFFICIAL])} labels, of which not all are those of the archive's {len(official)}"
            )
        people = np.stack([labels[person] for person in PEOPLE], axis=1)
        if people.min(initial=0) < 0 or people.max(initial=0) >= len(self.class_names):
            raise CondmixError(f"{path}: a person's label is not one of the {len(self.class_names)} classes")
        return people

    @cached_property
    def _places(self) -> dict[str, np.ndarray]:
        """The rows of each split in the archive's training pictures, in the archive's order."""
        self.check_settings(self.settings)
        count = len(self._people)
        order = sorted(range(count), key=lambda place: scattered(str(place)))
        first = round(count * self.settings["held_out_percent"] / 100)
        if not 0 < first < count:
            raise CondmixError(
                f"data.world.held_out_percent {self.settings['held_out_percent']} of {count} pictures leaves a split "
                "without any"
            )
        return {"test": np.sort(order[:first]), "train": np.sort(order[first:])}

    def ids(self, split: str) -> list[int]:
        return [int(place) for place in self._places[split]]

    def images(self, split: str) -> Iterator[np.ndarray]:
        pictures = self._archive.split("train")[0]
        for place in self._places[split]:
            yield pictures[place]

    def labels(self, split: str) -> np.ndarray:
        labels: np.ndarray = self._archive.split("train")[1][self._places[split]]
        return labels

    def captions(self, split: str) -> list[list[str]]:
        names = self.class_names
        return [[names[label] for label in row] for row in self._people[self._places[split]]]


def read_labels(path: Path) -> dict[str, np.ndarray]:
    """The official labels and three people's, (N,) int64 each.

    torch.save wrote the file: a zip with a pickle, which may hold nothing but arrays here.
    """
    with open_zip(path) as archive:
        name = next((one for one in archive.namelist() if one.endswith("/data.pkl")), "archive/data.pkl")
        content = unpickle(read_member(archive, name), f"{path}: {name}")
    if not isinstance(content, dict):
        raise CondmixError(f"{path}: {name} holds a {type(content).__name__}, not a dictionary")
    labels: dict[str, np.ndarray] = {}
    for key in (OFFICIAL, *PEOPLE):
        values = content.get(key)
        if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "iu":
            raise CondmixError(f"{path} holds no row of integers under {key}: it is not the file of CIFAR-10N")
        labels[key] = values
    if len({len(values) for values in labels.values()}) > 1:
        raise CondmixError(f"{path}: its people did not label the same number of pictures")
    return labels
