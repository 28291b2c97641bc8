"""Pictures of one's own in a folder; sub-folders are classes, and files beside the pictures are captions.

    train/cat/1.jpg, train/dog/2.png, test/cat/3.webp      splits, and in them classes (torchvision's ImageFolder)
    captions.jsonl   {"file": "train/cat/1.jpg", "captions": ["a cat", "a cat on a sofa"]}
    metadata.jsonl   {"file_name": "1.jpg", "text": "a cat"}      (Hugging Face's imagefolder)
    metadata.csv     with the columns file_name and text          (the same)
    1.txt, 1.caption beside 1.jpg: its caption                    (kohya's trainers)

Classes and captions are each optional. A caption file's paths are relative to the folder that it lies in. Without
train/ and test/, `data.world: {held_out_percent: 5}` divides the pictures. Names that begin with a dot are passed over.
"""

import csv
import io
import posixpath
import re
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from condmix import CondmixError, shown
from condmix.files.atomic import replacing
from condmix.files.pictures import SUFFIXES, is_picture, read_file

from . import SPLITS
from ._archives import open_zip, read_member
from ._json import parse
from ._own_files import PictureFiles, is_hidden, walk
from ._splits import divide, scattered

ARCHIVE = "pictures.zip"
LINES = {"captions.jsonl": ("file", "captions"), "metadata.jsonl": ("file_name", "text")}  # name -> its keys
TABLE = "metadata.csv"
TABLE_COLUMNS = ("file_name", "text")
TEXTS = (".txt", ".caption")
UNSAFE = re.compile(r"[\udc80-\udcff\\]|(?<=^[A-Za-z]):(?=/)")  # a byte that is no UTF-8, \, the colon of a drive
EPOCH = (1980, 1, 1, 0, 0, 0)  # every entry's date, the earliest that zip can hold: equal files, equal bytes


class Folder(PictureFiles):
    """Reads pictures.zip, which the stage fetch packs from `data.folder`, or downloads as any other archive.

    Pictures come in an order as good as random, so that the first ones of a split are not all of one class.
    """

    @staticmethod
    def pack(folder: Path, archives: Path) -> None:
        """Writes pictures.zip from the folder's pictures and caption files; equal files give equal bytes."""
        names = read_names(walk(folder))
        files = {_stored(name): name for name in names}
        twice = set(names) - set(files.values())
        if twice:
            raise CondmixError(f"{folder}: '{min(twice)}' and another file would have the same name: rename one")
        if not any(map(is_picture, files)):
            raise CondmixError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
        with replacing(archives / ARCHIVE) as part, zipfile.ZipFile(part, "w") as archive:
            bar = tqdm(sorted(files, key=scattered), f"pack {shown(folder.name)}", unit="file", mininterval=0.5)
            for name in bar:  # in the order in which they are read later
                archive.writestr(zipfile.ZipInfo(name, EPOCH), read_file(folder / files[name]))

    @staticmethod
    def remarks(folder: Path) -> Iterator[tuple[str, str]]:
        """(what it is, where it is) of what `pack` leaves out, and of names that it changes."""
        names = sorted(walk(folder))
        read = set(read_names(names))
        for name in names:
            if name not in read:
                yield "file that is neither picture nor captions", name
            elif UNSAFE.search(name):
                yield "name that is not UTF-8 or that Windows would take for another path", f"{name}: {_stored(name)}"

    @property
    def path(self) -> Path:
        return self.archives / ARCHIVE

    @cached_property
    def _names(self) -> list[str]:
        """The archive's files, in the order in which pictures are read."""
        with open_zip(self.path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
        return sorted((name for name in names if not is_hidden(name)), key=scattered)

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
        beside = defaultdict(list)  # name without its ending -> pictures
        for name in filter(is_picture, self._names):
            beside[_stem(name)].append(name)
        pictures = {_stored(name): name for names in beside.values() for name in names}
        with open_zip(self.path) as archive:
            for name in self._caption_files:
                content = read_member(archive, name)
                for place, picture, texts in _read_captions(content, name, f"{self.path}: {name}", beside):
                    if picture in pictures:
                        captions.setdefault(pictures[picture], []).extend(texts)
                    else:
                        unmatched.append(f"{name}, {place}: {picture}")
        return captions, unmatched

    @cached_property
    def _caption_files(self) -> list[str]:
        return [name for name in read_names(self._names) if not is_picture(name)]

    @cached_property
    def class_names(self) -> list[str]:
        """The sub-folders' names; none where there is only one, which tells no picture from another."""
        classes = (self._class_of(name) for split in SPLITS for name in self._splits[split])
        names = {name for name in classes if name is not None}
        return sorted(names) if len(names) > 1 else []

    def files(self, split: str, rows: slice = slice(None)) -> Iterator[tuple[str, bytes]]:
        """Each picture's name and its file as it is, in the order of `ids`."""
        with open_zip(self.path) as archive:
            for name in self._splits[split][rows]:
                yield name, read_member(archive, name)

    def _class_of(self, picture: str) -> str | None:
        """The sub-folder of its split, or of everything, that a picture lies in."""
        folders = picture.split("/")[1 if _split_of(picture) else 0 : -1]
        return unicodedata.normalize("NFC", folders[0]) if folders else None

    def _full_name(self, name: str) -> str:
        return f"{self.path}: {name}"

    def captions(self, split: str) -> list[list[str]] | None:
        if not self._caption_files:
            return None
        return [self._captions[0].get(name, []) for name in self._splits[split]]

    def passed_over(self) -> Iterator[tuple[str, str]]:
        """(what it is, where it is) of all that the archive holds and no other method gives."""
        used = {*self._caption_files, *(name for split in SPLITS for name in self._splits[split])}
        for name in sorted(set(self._names) - used):
            if is_picture(name):
                yield "picture outside of train/ and test/", name
            else:
                yield "file that is neither picture nor captions", name
        for line in self._captions[1]:
            yield "caption line whose picture is not there", line


def read_names(names: Iterable[str]) -> list[str]:
    """Those of pictures and of captions; a text is captions if a picture has the same name but for the ending."""
    names = list(names)
    stems = {_stem(name) for name in names if is_picture(name)}

    def is_read(name: str) -> bool:
        if is_picture(name) or posixpath.basename(name) in (*LINES, TABLE):
            return True
        return name.lower().endswith(TEXTS) and _stem(name) in stems

    return list(filter(is_read, names))


def _stored(name: str) -> str:
    """A path as the zip has it: what could not be written or would be refused when it is read is escaped, as %E9.

    A letter and its accent are one character (NFC): macOS names files with two, and people type one.
    """
    return UNSAFE.sub(lambda character: f"%{ord(character[0]) & 0xFF:02X}", unicodedata.normalize("NFC", name))


def _stem(name: str) -> str:
    """What a picture has in common with the text beside it."""
    return _stored(posixpath.splitext(name)[0])


def _split_of(name: str) -> str | None:
    top = name.split("/")[0]
    return top if "/" in name and top in SPLITS else None


def _read_captions(
    content: bytes, file: str, source: str, beside: Mapping[str, list[str]]
) -> Iterator[tuple[str, str, list[str]]]:
    """(place in the file, picture, what is said of it) of everything that a file of captions says."""
    base = posixpath.basename(file)
    if base in LINES:
        for number, line in enumerate(content.splitlines(), 1):
            if line.strip():
                picture, texts = _read_line(line, LINES[base], f"{source}, line {number}")
                yield f"line {number}", _beside(file, picture), texts
    elif base == TABLE:
        for number, (picture, text) in _read_table(content, source):
            yield f"line {number}", _beside(file, picture), [text]
    else:
        text = _decoded(content, source)
        for picture in beside[_stem(file)]:
            yield "line 1", _stored(picture), [text]


def _beside(file: str, picture: str) -> str:
    """The stored name of a picture whose path is relative to the folder of `file`."""
    return _stored(posixpath.normpath(posixpath.join(posixpath.dirname(file), picture)))


def _read_line(line: bytes, keys: tuple[str, str], source: str) -> tuple[str, list[str]]:
    """The picture that a line of JSON speaks of, and what it says."""
    path_key, text_key = keys
    try:
        content = parse(_decoded(line, source))
        picture, texts = content[path_key], content[text_key]
    except (ValueError, KeyError, TypeError) as error:
        raise CondmixError(f'{source} is not {{"{path_key}": ..., "{text_key}": ...}} ({error!r})') from error
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(picture, str) or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise CondmixError(f"{source}: {path_key} must be a path, and {text_key} a text or a list of texts")
    return picture, texts


def _read_table(content: bytes, source: str) -> Iterator[tuple[int, tuple[str, str]]]:
    """(line, (picture, text)) of a table with a line of column names."""
    reader = csv.DictReader(io.StringIO(_decoded(content, source), newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        missing = [name for name in TABLE_COLUMNS if name not in columns]
        if missing:
            raise CondmixError(
                f"{source} has no column {missing[0]} among {', '.join(columns) or 'none'}: rename the one that it is, "
                "or take the file out of the folder"
            )
        twice = [name for name in TABLE_COLUMNS if columns.count(name) > 1]
        if twice:
            raise CondmixError(f"{source} has two columns {twice[0]}: rename the one that is not meant")
        for row in reader:
            picture, text = (row[name] for name in TABLE_COLUMNS)
            if picture is None or text is None:
                raise CondmixError(f"{source}, line {reader.line_num} has fewer columns than the first line")
            if any(row.get(None, ())):  # DictReader's key of what has no column: the rest of a caption, often
                raise CondmixError(
                    f"{source}, line {reader.line_num} has more columns than the first line: put quotes around a text "
                    "that holds a comma"
                )
            yield reader.line_num, (picture, text)
    except csv.Error as error:
        raise CondmixError(f"{source} is no table behind line {reader.line_num} ({error})") from error


def _decoded(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CondmixError(f"{source} is not UTF-8 ({error}): save it as UTF-8") from error
