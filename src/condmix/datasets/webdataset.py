"""Pictures of one's own in tar shards (https://github.com/webdataset/webdataset), as img2dataset writes them.

    000000012.jpg (.png, .webp, .gif ...) one sample is the files of one key, one after the other
    000000012.txt                         its caption
    000000012.json                        or its captions: {"caption": "..."} or {"captions": ["...", "..."]}
    000000012.cls                         its class

A shard belongs to the split that its path begins with: train/00000.tar, test-00000.tar. Where none does (img2dataset's
00000.tar), `data.world: {held_out_percent: 5}` divides the samples by their keys. Gzipped shards of one's own (.tar.gz,
.tgz) are unzipped by the stage fetch. Names that begin with a dot are passed over.
"""

import gzip
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import IO, cast

from tqdm import tqdm

from condmix import CondmixError, shown
from condmix.files.atomic import replacing
from condmix.files.pictures import check_size, is_picture

from . import SPLITS
from ._archives import AGAIN, check_member, damaged, missing
from ._json import parse
from ._own_files import PictureFiles, is_hidden, walk
from ._splits import divide

KEY = re.compile(r"((?:.*/)?[^./]+)(\.[^/]*)", re.DOTALL)  # a key ends at its file name's first dot
SPLIT = re.compile(rf"({'|'.join(SPLITS)})[^a-z]")
TEXTS = (".txt", ".json", ".cls")
TEXT_BYTES = 1 << 24  # of one of them
SHARD = re.compile(r"(.*)\.(tar|tar\.gz|tgz)", re.DOTALL)
GZIP = b"\x1f\x8b"  # how a gzipped file begins, whatever it is called


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture: where its bytes lie in which shard, and what stands beside it."""

    key: str
    shard: Path
    name: str
    start: int  # bytes from the shard's beginning
    size: int  # bytes
    captions: list[str] | None  # None where the sample has no file for them
    class_name: str | None


@dataclass
class Contents:
    """What one pass over the shards finds, without reading a picture."""

    samples: list[Sample] = field(default_factory=list)
    passed_over: list[tuple[str, str]] = field(default_factory=list)  # (what it is, where it is)


class Webdataset(PictureFiles):
    """Reads the shards in place and in their order, one picture at a time; the texts stay in memory."""

    @staticmethod
    def pack(folder: Path, archives: Path) -> None:
        """Copies the shards, unzipped; CondmixError names the one that is damaged."""
        shards = {name: match[1] for name in sorted(walk(folder)) if (match := SHARD.fullmatch(name))}
        if not shards:
            raise CondmixError(f"{folder} holds no shards (*.tar, *.tar.gz, *.tgz)")
        for name, stem in tqdm(shards.items(), f"copy {shown(folder.name)}", unit="shard", mininterval=0.5):
            target = archives / f"{stem}.tar"
            if target.exists():
                raise CondmixError(f"{folder / name} and another shard would both be {target.name}: rename one")
            with replacing(target) as part:
                _copy(folder / name, part)

    @staticmethod
    def remarks(folder: Path) -> Iterator[tuple[str, str]]:
        """(what it is, where it is) of what `pack` leaves out."""
        for name in sorted(walk(folder)):
            if not SHARD.fullmatch(name):
                yield "file that is not a shard", name

    @cached_property
    def _contents(self) -> Contents:
        shards = sorted(path for path in self.archives.rglob("*.tar") if path.is_file())
        shards = [path for path in shards if not is_hidden(path.relative_to(self.archives).as_posix())]
        if not shards:
            raise missing(self.archives / "*.tar")
        contents = Contents()
        for shard in tqdm(shards, "read shards", unit="shard", mininterval=0.5):
            _read_shard(shard, contents)
        return contents

    @cached_property
    def _splits(self) -> dict[str, list[Sample]]:
        samples = self._contents.samples
        keys, placed = [sample.key for sample in samples], [self._split_of(sample) for sample in samples]
        rows = divide(keys, placed, self.settings, self.archives)
        return {split: [samples[row] for row in rows[split]] for split in SPLITS}

    def _split_of(self, sample: Sample) -> str | None:
        split = SPLIT.match(sample.shard.relative_to(self.archives).as_posix())
        return split[1] if split else None

    @cached_property
    def class_names(self) -> list[str]:
        """What the .cls files hold, numbers in their order."""
        classes = (sample.class_name for split in SPLITS for sample in self._splits[split])
        names = {name for name in classes if name is not None}
        # Decimal, as int() takes no more than 4300 digits
        return sorted(names, key=lambda name: (0, Decimal(name), "") if name.isdecimal() else (1, 0, name))

    def files(self, split: str, rows: slice = slice(None)) -> Iterator[tuple[str, bytes]]:
        """Each picture's name and its file as it is, in the order of `ids`."""
        for shard, samples in groupby(self._splits[split][rows], key=lambda sample: sample.shard):
            with open(shard, "rb") as file:
                for sample in samples:
                    name = f"{shard.relative_to(self.archives)}: {sample.name}"
                    check_size(sample.size, f"{self.archives}/{name}")
                    file.seek(sample.start)
                    yield name, file.read(sample.size)

    def _class_of(self, picture: Sample) -> str | None:
        return picture.class_name

    def _full_name(self, name: str) -> str:
        return f"{self.archives}/{name}"

    def captions(self, split: str) -> list[list[str]] | None:
        if all(sample.captions is None for sample in self._contents.samples):
            return None
        return [sample.captions or [] for sample in self._splits[split]]

    def passed_over(self) -> Iterator[tuple[str, str]]:
        """(what it is, where it is) of all that the shards hold and no other method gives."""
        yield from self._contents.passed_over
        used = {id(sample) for split in SPLITS for sample in self._splits[split]}
        for sample in self._contents.samples:
            if id(sample) not in used:
                yield "picture in a shard of neither train nor test", f"{sample.shard.name}: {sample.name}"


def _copy(shard: Path, part: Path) -> None:
    """One's own shard as it will be read; CondmixError says what is wrong with it."""
    if not shard.is_file():
        raise CondmixError(f"{shard} is not a regular file, so it is not read")
    mend = "make it again, or take it out of the folder"
    try:
        with open(shard, "rb") as file:
            zipped = file.read(len(GZIP)) == GZIP
            file.seek(0)
            with open(part, "wb") as copy:
                shutil.copyfileobj(gzip.open(file) if zipped else file, copy, 1 << 20)
    except PermissionError as error:
        raise CondmixError(f"{shard} can't be read ({error.strerror})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(shard, error, mend) from error
    with _opened(part, shard, mend) as archive:
        for _ in _members(shard, archive, mend):
            pass


@contextmanager
def _opened(path: Path, shown_as: Path, mend: str = AGAIN) -> Iterator[tarfile.TarFile]:
    """The tar at `path`; what is wrong with it is said of `shown_as`, and `mend` is what to do about it."""
    try:
        with tarfile.open(path, "r:") as archive:
            yield archive
            with open(path, "rb") as file:
                file.seek(archive.offset)
                while block := file.read(1 << 20):
                    if block.strip(b"\0"):
                        raise damaged(shown_as, "other bytes follow its end", mend)
    except CondmixError:
        raise
    except Exception as error:  # tarfile, OS and header errors: a damaged tar fails in many ways
        raise damaged(shown_as, error, mend) from error


def _read_shard(shard: Path, contents: Contents) -> None:
    """Adds a shard's samples; headers and texts are read, pictures are skipped."""
    before = len(contents.samples)
    with _opened(shard, shard) as archive:
        keyed = []
        for member in _members(shard, archive):
            if is_hidden(member.name.removeprefix("./")):  # `tar -cf x.tar .` writes ./1.jpg
                continue
            if _divided(member.name)[1]:
                keyed.append(member)
            else:
                contents.passed_over.append(("file without an ending", f"{shard.name}: {member.name}"))
        for key, members in groupby(keyed, key=lambda member: _divided(member.name)[0]):
            _read_sample(shard, archive, key, list(members), contents)
    if len(contents.samples) == before:
        contents.passed_over.append(("shard without a picture", shard.name))


def _divided(name: str) -> tuple[str, str]:
    """A file's key and ending, which is "" where it has none."""
    parts = KEY.fullmatch(name)
    return (parts[1], parts[2]) if parts else (name, "")


def _members(shard: Path, archive: tarfile.TarFile, mend: str = AGAIN) -> Iterator[tarfile.TarInfo]:
    """The shard's files; links, whatever else is no plain file, and two files of one name are refused."""
    names = set()
    for member in archive:
        check_member(shard, member.name, link=not (member.isfile() or member.isdir()) or member.issparse())
        if member.isfile():
            if member.name in names:
                raise damaged(shard, f"it holds '{member.name}' twice", mend)
            names.add(member.name)
            yield member


def _read_sample(
    shard: Path, archive: tarfile.TarFile, key: str, members: list[tarfile.TarInfo], contents: Contents
) -> None:
    source = f"{shard}: {key}"
    pictures, texts = [], {}
    for member in members:
        suffix = _divided(member.name)[1].lower()
        if is_picture(suffix):
            pictures.append(member)
        elif suffix in TEXTS:
            check_size(member.size, f"{shard}: {member.name}", TEXT_BYTES)
            texts[suffix] = cast(IO[bytes], archive.extractfile(member)).read()
        else:
            contents.passed_over.append((f"file of a kind that is not read ({suffix})", f"{shard.name}: {member.name}"))
    if len(pictures) > 1:
        raise CondmixError(f"{source} has {len(pictures)} pictures: {', '.join(member.name for member in pictures)}")
    if not pictures:
        contents.passed_over.append(("sample without a picture", f"{shard.name}: {key}"))
        return
    picture, class_name = pictures[0], _text(texts, ".cls", source)
    contents.samples.append(
        Sample(
            key,
            shard,
            picture.name,
            picture.offset_data,
            picture.size,
            _captions(texts, source),
            class_name.strip() if class_name else None,
        )
    )


def _captions(texts: dict[str, bytes], source: str) -> list[str] | None:
    """Those of the .txt and the .json; img2dataset writes the same one into both."""
    plain, document = _text(texts, ".txt", source), _text(texts, ".json", source)
    if plain is None and document is None:
        return None
    try:
        content = parse(document or "{}")
        listed = content.get("captions") or []
        given = [plain, content.get("caption"), *listed]
    except (ValueError, AttributeError, TypeError) as error:
        raise CondmixError(f"{source}.json is not a JSON object with captions ({error})") from error
    captions = [text for text in given if text is not None]
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in captions):
        raise CondmixError(f"{source}.json: caption must be a text, and captions a list of texts")
    return list(dict.fromkeys(captions)) or None


def _text(texts: dict[str, bytes], suffix: str, source: str) -> str | None:
    try:
        return texts[suffix].decode() if suffix in texts else None
    except UnicodeDecodeError as error:
        raise CondmixError(f"{source}{suffix} is not UTF-8 ({error})") from error
