"""Archives, read in place: names are checked as if they were extracted, sizes before anything is unpacked."""

import gzip
import re
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import IO, Any, cast

from condmix import CondmixError
from condmix.files.pictures import BYTES, check_size

AGAIN = "delete it and run the stage fetch again, or mend what it is fetched from"
DRIVE = re.compile(r"[A-Za-z]:[\\/]")  # other colons are ordinary letters of a name: "10:20:30.png"
TAR_BYTES = 1 << 30  # of an entry of read_tar
ZIP_END = b"PK\x05\x06"  # how the last record of a zip begins, and
ZIP_END_BYTES = 22  # how long it is without its comment


def check_member(archive: Path, name: str, link: bool) -> None:
    """Refuses an entry that would leave its folder if somebody extracted the archive."""
    parts = name.replace("\\", "/").split("/")
    if link:
        raise CondmixError(f"{archive} holds the link '{name}': the official archive has none, so it is not read")
    if name.startswith(("/", "\\")) or ".." in parts or DRIVE.match(name):
        raise CondmixError(f"{archive} holds '{name}', which escapes its folder, so the archive is not read")


def damaged(archive: Path, error: Exception | str, mend: str = AGAIN) -> CondmixError:
    """The sentence for an archive that ends early or does not decompress, and what to do about it."""
    if isinstance(error, PermissionError):
        return CondmixError(f"{archive} can't be read ({error.strerror})")
    reason = str(error) or type(error).__name__
    return CondmixError(f"{archive} is cut short or damaged ({reason}): {mend}")


def missing(archive: Path) -> CondmixError:
    return CondmixError(f"{archive} is missing: run the stage fetch")


def check_regular(path: Path) -> None:
    """Refuses what would keep a reader waiting, as a pipe does, or never end, as a device."""
    if path.exists() and not path.is_file():
        raise damaged(path, "it is not a regular file")


def open_zip(path: Path) -> zipfile.ZipFile:
    """Opens a zip archive whose every entry stays inside its folder, and behind which nothing follows."""
    check_regular(path)
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise missing(path) from None
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise damaged(path, error) from error
    file: Any = archive.fp
    file.seek(-ZIP_END_BYTES - len(archive.comment), 2)
    if file.read(len(ZIP_END)) != ZIP_END:
        raise damaged(path, "other bytes follow its end")
    names = set()
    for info in archive.infolist():
        check_member(path, info.filename, link=stat.S_ISLNK(info.external_attr >> 16))
        if info.filename in names:
            raise damaged(path, f"it holds '{info.filename}' twice")
        names.add(info.filename)
    return archive


def read_member(archive: zipfile.ZipFile, name: str, most: int = BYTES) -> bytes:
    """One entry's bytes, at most so many, its CRC checked by zipfile."""
    path = Path(archive.filename or "")
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise CondmixError(f"{path} holds no {name}: it is not the official archive") from None
    check_size(info.file_size, f"{path}: {name}", most)
    try:
        with archive.open(info) as entry:
            # Without a number, zipfile unpacks up to 2 GiB before it looks at the size that the entry should have.
            content = entry.read(info.file_size + 1)
    except Exception as error:  # zlib, struct, EOF and CRC errors: a damaged zip fails in many ways
        raise damaged(path, error) from error
    if len(content) != info.file_size:
        raise damaged(path, f"{name} has {len(content)} of {info.file_size} bytes")
    return content


def read_tar(path: Path, wanted: set[str]) -> dict[str, bytes]:
    """The wanted members of a .tar.gz in one pass, every member's name checked on the way."""
    contents = {}
    check_regular(path)
    try:
        with gzip.open(path) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as archive:
            for member in archive:
                check_member(path, member.name, link=not (member.isfile() or member.isdir()))
                if member.name in contents:
                    raise damaged(path, f"it holds '{member.name}' twice")
                if member.name in wanted:
                    check_size(member.size, f"{path}: {member.name}", TAR_BYTES)
                    contents[member.name] = cast(IO[bytes], archive.extractfile(member)).read()
            while unzipped.read(1 << 20):  # to the very end, where gzip keeps the checksum of it all
                pass
    except FileNotFoundError:
        raise missing(path) from None
    except CondmixError:
        raise
    except Exception as error:  # gzip, zlib, tarfile and EOF errors: a damaged tar fails in many ways
        raise damaged(path, error) from error
    absent = sorted(wanted - contents.keys())
    if absent:
        raise CondmixError(f"{path} holds no {absent[0]}: it is not the official archive, or it is cut short")
    return contents
