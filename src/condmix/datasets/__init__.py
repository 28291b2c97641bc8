"""Data sets: official archives -> images, labels and captions; and the prepared arrays that training reads.

One file per data set, its name is the value of `data.dataset`: `coco.py` holds the class `Coco`. Files that
start with an underscore are shared by the plug-ins of this package. Splits are always "train" and "test".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.files.artifacts import damaged, read_array, read_json

SPLITS = ("train", "test")
REMEDY = "dvc repro prepare"


class SplitMeta(TypedDict):
    """A split in meta.json: its number of pictures, and the sha256 of their pixels and of every other array's data."""

    count: Annotated[int, Field(ge=1)]
    images_sha256: str
    sha256: dict[str, str]


class Meta(TypedDict):
    """meta.json of a prepared data set."""

    image_size: Annotated[int, Field(ge=1)]
    class_names: list[str]
    attributes: dict[str, Annotated[list[str], Field(min_length=1)]]
    splits: dict[str, SplitMeta]


class Dataset:
    """What every data set offers; a plug-in overrides what its data has.

    A data set that needs no download also has `draw(archives: Path, settings: dict)`, which writes its files.
    """

    class_names: list[str] = []  # empty where the data has no classes
    attributes: dict[str, list[str]] = {}  # name -> values, in column order; empty where they are not known

    def __init__(self, archives: Path, settings: dict):
        """`archives` holds the official files; `settings` are the profile's `data.world`, often empty."""
        self.archives = Path(archives)
        self.settings = settings

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
            yield lambda image=image: image

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

    def claims(self, caption: str) -> list[int] | None:
        """The value that any caption, whoever wrote it, names of each attribute (A,), -1 where none.

        None where the data's attributes are not known.
        """
        return None


@dataclass(frozen=True)
class Split:
    """One split as the prepare stage wrote it; S is the training resolution, A the number of attributes."""

    images: np.ndarray  # (N, S, S, 3) uint8, mapped from disk
    ids: np.ndarray  # (N,) int64
    labels: np.ndarray | None  # (N,) int64, -1 unknown
    attributes: np.ndarray | None  # (N, A) int64
    mentions: np.ndarray | None  # (N, captions, A) bool
    class_names: list[str]
    attribute_names: dict[str, list[str]]  # name -> values, in column order

    @classmethod
    def load(cls, folder: Path, split: str) -> "Split":
        """Reads a prepared split; raises CondmixError where it is missing, damaged or inconsistent."""
        folder = Path(folder)
        meta = load_meta(folder)
        if split not in meta["splits"]:
            raise CondmixError(f"no split {split!r} in {folder}; found: {', '.join(meta['splits'])}")
        about, size, attributes = meta["splits"][split], meta["image_size"], meta["attributes"]

        def array(name: str, shape: tuple, dtype: type) -> np.ndarray | None:
            if name not in about["sha256"]:
                return None
            path = folder / f"{split}_{name}.npy"
            return read_array(path, dtype, (about["count"], *shape), REMEDY, about["sha256"][name])

        pixels = folder / f"{split}_images.npy"
        found = cls(
            images=read_array(pixels, np.uint8, (about["count"], size, size, 3), REMEDY, about["images_sha256"]),
            ids=array("ids", (), np.int64),
            labels=array("labels", (), np.int64),
            attributes=array("attributes", (len(attributes),), np.int64),
            mentions=array("mentions", (None, len(attributes)), np.bool_),
            class_names=meta["class_names"],
            attribute_names=attributes,
        )
        found._check(folder, split)
        return found

    def _check(self, folder: Path, split: str) -> None:
        """CondmixError where arrays that were read do not fit the names in meta.json."""
        columns = [] if self.labels is None else [("labels", self.labels, len(self.class_names))]
        if self.attributes is not None:
            values = zip(self.attributes.T, self.attribute_names.values(), strict=True)
            columns += [("attributes", column, len(names)) for column, names in values]
        if self.ids is None or bool(self.attribute_names) != (self.attributes is not None):
            lacking = "ids" if self.ids is None else "attributes"
            raise damaged(folder / "meta.json", f"it does not list {split}_{lacking}.npy", REMEDY)
        for name, numbers, count in columns:
            if numbers.min() < -1 or numbers.max() >= count:
                reason = f"it holds {numbers.min()} to {numbers.max()}, but meta.json names {count} values"
                raise damaged(folder / f"{split}_{name}.npy", reason, REMEDY)


def load_meta(folder: Path) -> dict:
    """The prepared folder's meta.json: dataset, image_size, class_names, attributes, splits."""
    return read_json(Path(folder) / "meta.json", Meta, REMEDY)
