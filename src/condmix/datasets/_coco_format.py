"""The COCO 2017 archives <-> pictures, captions and classes (https://cocodataset.org/#format-data).

train2017.zip and val2017.zip hold the pictures, annotations_trainval2017.zip the captions and, in the
official file, the instances, whose largest gives a picture its class. Our test split is val2017. Pictures are
streamed in the order of their ids and never all in memory; captions are read without touching a picture.
unlabeled2017.zip holds pictures of which nothing is known; asked for, they follow those of the training split.
"""

import contextlib
import io
import json
import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from condmix import CondmixError
from condmix.files.atomic import replacing
from condmix.files.pictures import decode

from . import Dataset
from ._archives import damaged, open_zip, read_member
from ._json import array_items, parse

ANNOTATIONS = "annotations_trainval2017.zip"
FOLDERS = {"train": "train2017", "test": "val2017"}
UNLABELED = "unlabeled2017"
CAPTION_BYTES = 1 << 28  # of a captions file, which is parsed whole; the official one of train2017 has 92 million
IDS = range(-(2**63), 2**63)  # what an int64 holds
EPOCH = (1980, 1, 1, 0, 0, 0)  # every entry's date, the earliest that zip can hold: equal input, equal bytes


class CocoArchive(Dataset):
    """Reads the three zips in place, or with the setting `unlabeled` four of them."""

    def __init__(self, archives: Path, settings: dict):
        super().__init__(archives, settings)
        self._captions: dict[str, object] = {}
        self._categories: dict[int, str] | None = None

    def ids(self, split: str) -> list[int]:
        return sorted(self._index(split).imgs) + list(self._unlabeled(split))

    def captions(self, split: str) -> list[list[str]]:
        """The captions of each picture, in the order of their annotation ids; none of what is unlabeled."""
        index = self._index(split)
        captions = [
            [note["caption"] for note in sorted(index.imgToAnns[picture], key=lambda note: note["id"])]
            for picture in sorted(index.imgs)
        ]
        return captions + [[] for _ in self._unlabeled(split)]

    def images(self, split: str) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 RGB in the order of `ids`, decoded one at a time."""
        for decoder in self.decoders(split):
            yield decoder()

    def decoders(self, split: str, rows: slice = slice(None)) -> Iterator[Callable[[], np.ndarray]]:
        for name, payload in self.files(split, rows):
            yield partial(decode, payload, f"{self.archives / name.split('/')[0]}.zip: {name}")

    def files(self, split: str, rows: slice = slice(None)) -> Iterator[tuple[str, bytes]]:
        """Each picture's name and its file as it is, in the order of `ids`."""
        index = self._index(split)
        captioned = [f"{FOLDERS[split]}/{index.imgs[picture]['file_name']}" for picture in sorted(index.imgs)]
        names = [*captioned, *self._unlabeled(split).values()][rows]
        for folder, members in groupby(names, key=lambda name: name.split("/")[0]):
            with open_zip(self.archives / f"{folder}.zip") as archive:
                for name in members:
                    yield name, read_member(archive, name)

    @property
    def class_names(self) -> list[str]:
        return list(self._category_names().values())

    def labels(self, split: str) -> np.ndarray | None:
        """(N,) int64: the category of the instance with the largest area, -1 where a picture has none."""
        categories = {number: row for row, number in enumerate(self._category_names())}
        if not categories:
            return None
        largest: dict[int, tuple[float, int]] = {}
        where = f"{self.archives / ANNOTATIONS}: {_instances_name(split)}"
        for note in self._instances(split, "annotations"):
            picture, area, category = (_field(note, name, where) for name in ("image_id", "area", "category_id"))
            if type(area) not in (int, float) or not math.isfinite(area) or type(picture) is not int:
                raise CondmixError(f"{where}: the area of an annotation of picture {picture!r} is {area!r}, no number")
            if type(category) is not int or category not in categories:
                raise CondmixError(
                    f"{where}: an annotation of picture {picture} has the category_id {category!r}, "
                    f"which is none of the categories of {_instances_name('test')}"
                )
            candidate = (area, categories[category])
            largest[picture] = max(candidate, largest.get(picture, candidate))
        return np.array([largest.get(picture, (0.0, -1))[1] for picture in self.ids(split)], np.int64)

    def strays(self, split: str) -> Iterator[str]:
        """The captions whose picture the captions file does not list."""
        index = self._index(split)
        for note in index.anns.values():
            if note["image_id"] not in index.imgs:
                yield f"captions_{FOLDERS[split]}.json: annotation {note['id']} of picture {note['image_id']}"

    def _unlabeled(self, split: str) -> dict[int, str]:
        """Picture number -> name in unlabeled2017.zip, by number; empty for the test split, and unless asked for."""
        if split != "train" or not self.settings.get("unlabeled"):
            return {}
        path = self.archives / f"{UNLABELED}.zip"
        with open_zip(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".jpg")]
        try:
            numbers = {int(Path(name).stem): name for name in names}
        except ValueError as error:
            raise CondmixError(f"{path} holds pictures that are not named by their number ({error})") from error
        if any(number not in IDS for number in numbers):
            raise CondmixError(f"{path} holds pictures whose number has more than 64 bits")
        twice = numbers.keys() & self._index(split).imgs
        if twice:
            raise CondmixError(f"{path}: {numbers[min(twice)]} is in {FOLDERS[split]} too: leave it in one of them")
        return dict(sorted(numbers.items()))

    def _index(self, split: str) -> Any:
        """pycocotools' index of the captions of one split."""
        if split not in self._captions:
            from pycocotools.coco import COCO  # takes half a second to import

            path = self.archives / ANNOTATIONS
            name = f"annotations/captions_{FOLDERS[split]}.json"
            with open_zip(path) as archive:
                payload = read_member(archive, name, CAPTION_BYTES)
            index = COCO()
            index.dataset = _captions_document(payload, f"{path}: {name}")
            with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
                index.createIndex()
            self._captions[split] = index
        return self._captions[split]

    def _category_names(self) -> dict[int, str]:
        """Category number -> name, in the order of the numbers; empty where there are no instances."""
        if self._categories is None:
            with open_zip(self.archives / ANNOTATIONS) as archive:
                present = _instances_name("test") in archive.namelist()
            where = f"{self.archives / ANNOTATIONS}: {_instances_name('test')}, categories"
            listed = _identified(self._instances("test", "categories") if present else (), where, "name")
            names = {number: category["name"] for number, category in sorted(listed.items())}
            twice = [name for name, times in Counter(names.values()).items() if times > 1]
            if twice:
                raise CondmixError(f"{where}: several are named '{twice[0]}': give each a name of its own")
            self._categories = names
        return self._categories

    def _instances(self, split: str, array: str) -> Iterator[dict]:
        """Streams one array of the instances file, which is half a gigabyte for train2017."""
        path, name = self.archives / ANNOTATIONS, _instances_name(split)
        with open_zip(path) as archive:
            if name not in archive.namelist():
                raise CondmixError(f"{path} holds no {name}: it is not the official archive")
            try:
                with archive.open(name) as stream:
                    yield from array_items(stream, array)
            except LookupError as error:
                raise CondmixError(f"{path}: {name} is not a COCO instances file ({error.args[0]})") from error
            except (ValueError, EOFError, OSError, zlib.error, zipfile.BadZipFile) as error:
                raise damaged(path, error) from error


def _captions_document(payload: bytes, where: str) -> dict:
    """A COCO captions file, if pictures and captions are as the format has them."""
    try:
        document = parse(payload)
    except ValueError as error:
        raise CondmixError(f"{where} is not a COCO captions file ({error})") from error
    if not isinstance(document, dict) or not all(type(document.get(key)) is list for key in ("images", "annotations")):
        raise CondmixError(f"{where} is not a COCO captions file (no lists of images and annotations)")
    if not document["images"]:
        raise CondmixError(f"{where} lists no pictures")
    _identified(document["images"], f"{where}, images", "file_name")
    for note in _identified(document["annotations"], f"{where}, annotations", "caption").values():
        if type(_field(note, "image_id", f"{where}, annotations")) is not int:
            raise CondmixError(f"{where}, annotations: {note['id']} has the image_id {note['image_id']!r}, no number")
    return document


def _identified(items: Iterable[Any], where: str, text: str) -> dict[int, dict]:
    """Items by their id, a whole number that none other has; `text` names the field of each that is a text."""
    by_id = {}
    for item in items:
        number = _field(item, "id", where)
        if type(number) is not int or number not in IDS:
            raise CondmixError(f"{where}: the id {number!r} is not a whole number of 64 bits")
        if number in by_id:
            raise CondmixError(f"{where}: the id {number} occurs twice: give each an id of its own")
        if not isinstance(_field(item, text, where), str):
            raise CondmixError(f"{where}: {number} has the {text} {item[text]!r}, which is not a text")
        by_id[number] = item
    return by_id


def _field(item: Any, name: str, where: str) -> Any:
    if not isinstance(item, dict) or name not in item:
        raise CondmixError(f"{where}: an entry has no {name}: {str(item)[:100]}")
    return item[name]


def _instances_name(split: str) -> str:
    return f"annotations/instances_{FOLDERS[split]}.json"


def write_coco(folder: Path, split: str, ids: list[int], images: Iterable[np.ndarray]) -> Path:
    """Writes one split's zip of JPEGs (quality 95, full colour resolution), named by 12-digit id."""
    path = Path(folder) / f"{FOLDERS[split]}.zip"
    with replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
        for picture, image in zip(ids, images, strict=True):
            jpeg = io.BytesIO()
            Image.fromarray(image).save(jpeg, "JPEG", quality=95, subsampling=0)
            archive.writestr(zipfile.ZipInfo(f"{FOLDERS[split]}/{file_name(picture)}", EPOCH), jpeg.getvalue())
    return path


def write_annotations(folder: Path, captions: dict[str, dict[int, list[str]]], size: int, description: str) -> Path:
    """Writes captions_{train,val}2017.json into one zip; `captions` is split -> picture id -> its captions."""
    path = Path(folder) / ANNOTATIONS
    number = 0
    with replacing(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for split, folder_name in FOLDERS.items():
            images, notes = [], []
            for picture, texts in captions[split].items():
                images.append({"id": picture, "file_name": file_name(picture), "height": size, "width": size})
                for text in texts:
                    number += 1
                    notes.append({"id": number, "image_id": picture, "caption": text})
            document = {
                "info": {"description": description},
                "licenses": [],
                "images": images,
                "annotations": notes,
            }
            entry = zipfile.ZipInfo(f"annotations/captions_{folder_name}.json", EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, json.dumps(document))
    return path


def file_name(picture: int) -> str:
    return f"{picture:012d}.jpg"
