"""What the stage prepare wrote: arrays of pictures, ids, labels and attributes, mapped from disk and checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.files.artifacts import damaged, read_array, read_json

REMEDY = "dvc repro prepare"


class SplitMeta(TypedDict):
    """A split in meta.json: its number of pictures, and the sha256 of their pixels and of every other array's data."""

    count: Annotated[int, Field(ge=1)]
    images_sha256: str
    sha256: dict[str, str]


class Meta(TypedDict):
    """meta.json of a prepared data set."""

    dataset: str
    image_size: Annotated[int, Field(ge=1)]
    class_names: list[str]
    attributes: dict[str, Annotated[list[str], Field(min_length=1)]]
    splits: dict[str, SplitMeta]


@dataclass(frozen=True)
class Split:
    """One split as the prepare stage wrote it; S is the training resolution, A the number of attributes."""

    images: np.ndarray  # (N, S, S, 3) uint8, mapped from disk
    ids: np.ndarray  # (N,) int64
    labels: np.ndarray | None  # (N,) int64, -1 unknown
    attributes: np.ndarray | None  # (N, A) int64
    mentions: np.ndarray | None  # (N, captions, A) bool
    held_out: np.ndarray | None  # (N,) bool: whose combination of attributes no training picture shows
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
        loaded = cls(
            images=read_array(pixels, np.uint8, (about["count"], size, size, 3), REMEDY, about["images_sha256"]),
            ids=cast(np.ndarray, array("ids", (), np.int64)),  # _check refuses None
            labels=array("labels", (), np.int64),
            attributes=array("attributes", (len(attributes),), np.int64),
            mentions=array("mentions", (None, len(attributes)), np.bool_),
            held_out=array("held_out", (), np.bool_),
            class_names=meta["class_names"],
            attribute_names=attributes,
        )
        loaded._check(folder, split)
        return loaded

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
    meta: dict = read_json(Path(folder) / "meta.json", Meta, REMEDY)
    return meta
