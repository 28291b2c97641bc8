"""Pictures of one's own in a folder; sub-folders are classes, and JSON lines beside the pictures are captions.

    train/cat/1.jpg, train/dog/2.png, test/cat/3.webp      splits, and in them classes (torchvision's ImageFolder)
    captions.jsonl   {"file": "train/cat/1.jpg", "captions": ["a cat", "a cat on a sofa"]}
    metadata.jsonl   {"file_name": "1.jpg", "text": "a cat"}      (Hugging Face's imagefolder)

Classes and captions are each optional. A caption file's paths are relative to the folder that it lies in. Without
train/ and test/, `data.world: {held_out_percent: 5}` divides the pictures. Names that begin with a dot are passed over.
"""

import json
import os
import posixpath
import zipfile
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from condmix import CondmixError
from condmix.files import replacing

from . import SPLITS, Dataset
from ._archives import open_zip, read_member
from ._pictures import SUFFIXES, decode, divide, held_out_percent, is_picture, scattered

ARCHIVE = "pictures.zip"
CAPTION_FILES = {"captions.jsonl": ("file", "captions"), "metadata.jsonl": ("file_name", "text")}  # name -> its keys
EPOCH = (1980, 1, 1, 0, 0, 0)  # every entry's date, the earliest that zip can hold: equal files, equal bytes


class Folder(Dataset):
    """Reads pictures.zip, which the stage fetch packs from `data.folder`, or downloads as any other archive.

    Pictures come in an order as good as random, so that the first ones of a split are not all of one class.
    """

    @staticmethod
    def check_settings(settings: dict) -> None:
        held_out_percent(settings)

    @staticmethod
    def pack(folder: Path, archives: Path) -> None:
        """Writes pictures.zip from the folder's pictures and caption files; equal files give equal bytes."""
        names = sorted(filter(_is_read, _walk(folder)), key=scattered)  # as they are read later
        if not any(map(is_picture, names)):
            raise CondmixError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
        with replacing(archives / ARCHIVE) as part, zipfile.ZipFile(part, "w") as archive:
            for name in tqdm(names, f"pack {folder.name}", unit="file", mininterval=0.5):
                try:
                    content = (folder / name).read_bytes()
                except OSError as error:
                    raise CondmixError(f"{folder / name} can't be read ({error.strerror})") from error
                archive.writestr(zipfile.ZipInfo(name, EPOCH), content)

    @property
    def path(self) -> Path:
        return self.archives / ARCHIVE

    @cached_property
    def _names(self) -> list[str]:
        """The archive's files, in the order in which pictures are read."""
        with open_zip(self.path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
        return sorted((name for name in names if not _is_hidden(name)), key=scattered)

    @cached_property
    def _splits(self) -> dict[str, list[str]]:
        """The names of each split's pictures."""
        pictures = [name for name in self._names if is_picture(name)]
        rows = divide(pictures, [_split_of(name) for name in pictures], self.settings, self.path)
        return {split: [pictures[row] for row in rows[split]] for split in SPLITS}

    @cached_property
    def _captions(self) -> tuple[dict[str, list[str]], list[str]]:
        """The captions of each picture, and the lines whose picture is not there."""
        captions: dict[str, list[str]] = {}
        unmatched = []
        pictures = {name for name in self._names if is_picture(name)}
        with open_zip(self.path) as archive:
            for name in filter(_is_caption_file, self._names):
                for number, line in enumerate(read_member(archive, name).splitlines(), 1):
                    if not line.strip():
                        continue
                    picture, texts = _read_line(line, name, f"{self.path}: {name}, line {number}")
                    if picture in pictures:
                        captions.setdefault(picture, []).extend(texts)
                    else:
                        unmatched.append(f"{name}, line {number}: {picture}")
        return captions, unmatched

    @cached_property
    def class_names(self) -> list[str]:
        """The sub-folders' names; none where there is only one, which tells no picture from another."""
        names = {_class_of(name) for split in SPLITS for name in self._splits[split]} - {None}
        return sorted(names) if len(names) > 1 else []

    def ids(self, split: str) -> list[int]:
        return list(range(len(self._splits[split])))

    def files(self, split: str, rows: slice = slice(None)) -> Iterator[tuple[str, bytes]]:
        """Each picture's name and its file as it is, in the order of `ids`."""
        with open_zip(self.path) as archive:
            for name in self._splits[split][rows]:
                yield name, read_member(archive, name)

    def images(self, split: str) -> Iterator[np.ndarray]:
        for decoder in self.decoders(split):
            yield decoder()

    def decoders(self, split: str, rows: slice = slice(None)) -> Iterator[Callable[[], np.ndarray]]:
        for name, payload in self.files(split, rows):
            yield partial(decode, payload, f"{self.path}: {name}")

    def labels(self, split: str) -> np.ndarray | None:
        if not self.class_names:
            return None
        numbers = {name: number for number, name in enumerate(self.class_names)}
        return np.array([numbers.get(_class_of(name), -1) for name in self._splits[split]], np.int64)

    def captions(self, split: str) -> list[list[str]] | None:
        if not any(map(_is_caption_file, self._names)):
            return None
        return [self._captions[0].get(name, []) for name in self._splits[split]]

    def passed_over(self) -> Iterator[tuple[str, str]]:
        """(what it is, where it is) of all that the archive holds and no other method gives."""
        used = {name for split in SPLITS for name in self._splits[split]}
        for name in sorted(set(self._names) - used):
            if is_picture(name):
                yield "picture outside of train/ and test/", name
            elif not _is_caption_file(name):
                yield "file that is neither picture nor captions", name
        for line in self._captions[1]:
            yield "caption line whose picture is not there", line


def _walk(folder: Path) -> Iterator[str]:
    """The files' paths below the folder, with forward slashes."""
    for place, folders, files in os.walk(folder):
        for name in folders:
            if os.path.islink(os.path.join(place, name)):
                raise CondmixError(f"{place}/{name} links to a folder, into which DVC does not look: move it there")
        for name in files:
            yield Path(place, name).relative_to(folder).as_posix()


def _is_hidden(name: str) -> bool:
    """macOS leaves ._1.jpg beside 1.jpg, and __MACOSX/ in its zips."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _is_caption_file(name: str) -> bool:
    return posixpath.basename(name) in CAPTION_FILES


def _is_read(name: str) -> bool:
    return not _is_hidden(name) and (is_picture(name) or _is_caption_file(name))


def _split_of(name: str) -> str | None:
    top = name.split("/")[0]
    return top if "/" in name and top in SPLITS else None


def _class_of(name: str) -> str | None:
    """The sub-folder of its split, or of everything, that a picture lies in."""
    folders = name.split("/")[1 if _split_of(name) else 0 : -1]
    return folders[0] if folders else None


def _read_line(line: bytes, file: str, source: str) -> tuple[str, list[str]]:
    """The picture that a line of a caption file speaks of, and what it says."""
    path_key, text_key = CAPTION_FILES[posixpath.basename(file)]
    try:
        content = json.loads(line)
        picture, texts = content[path_key], content[text_key]
    except (ValueError, KeyError, TypeError) as error:
        raise CondmixError(f'{source} is not {{"{path_key}": ..., "{text_key}": ...}} ({error!r})') from error
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(picture, str) or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise CondmixError(f"{source}: {path_key} must be a path, and {text_key} a text or a list of texts")
    return posixpath.normpath(posixpath.join(posixpath.dirname(file), picture)), texts
