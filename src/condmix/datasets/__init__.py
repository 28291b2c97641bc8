"""Data sets: official archives -> images, labels and captions; and the prepared arrays that training reads.

One file per data set, its name is the value of `data.dataset`: `coco.py` holds the class `Coco`. Files that
start with an underscore are shared by the plug-ins of this package. Splits are always "train" and "test".
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from condmix import CondmixError

SPLITS = ("train", "test")


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
        """Reads a prepared split; raises CondmixError where it is missing, cut short or inconsistent."""
        folder = Path(folder)
        meta = load_meta(folder)
        if split not in meta["splits"]:
            raise CondmixError(f"no split {split!r} in {folder}; found: {', '.join(meta['splits'])}")
        count, size = meta["splits"][split]["count"], meta["image_size"]

        def array(name: str, shape: tuple, dtype: type, optional: bool = True) -> np.ndarray | None:
            path = folder / f"{split}_{name}.npy"
            if optional and not path.exists():
                return None
            return _load_array(path, (count, *shape), dtype)

        attributes = len(meta["attributes"])
        return cls(
            images=array("images", (size, size, 3), np.uint8, optional=False),
            ids=array("ids", (), np.int64, optional=False),
            labels=array("labels", (), np.int64),
            attributes=array("attributes", (attributes,), np.int64),
            mentions=array("mentions", (None, attributes), np.bool_),
            class_names=meta["class_names"],
            attribute_names=meta["attributes"],
        )


def load_meta(folder: Path) -> dict:
    """The prepared folder's meta.json: dataset, image_size, class_names, attributes, splits."""
    path = Path(folder) / "meta.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CondmixError(f"no prepared data in {folder} (meta.json is missing): run the stage prepare") from None
    except ValueError as error:
        raise CondmixError(f"{path} is damaged ({error}): run the stage prepare again") from error


def _load_array(path: Path, shape: tuple, dtype: type) -> np.ndarray:
    """Maps one array from disk and checks its shape; None in `shape` stands for any length."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise CondmixError(f"{path} is missing: run the stage prepare") from None
    except (ValueError, EOFError, OSError) as error:
        raise CondmixError(f"{path} is damaged or cut short ({error}): run the stage prepare again") from error
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits or array.dtype != dtype:
        raise CondmixError(
            f"{path} holds {array.dtype} {array.shape}, but meta.json says {np.dtype(dtype)} {shape}: "
            "run the stage prepare again"
        )
    return array
