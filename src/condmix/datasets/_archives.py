"""Archives, read in place: names are checked as if they were extracted, damage is said in a sentence."""

import gzip
import stat
import tarfile
import zipfile
from pathlib import Path

from condmix import CondmixError


def check_member(archive: Path, name: str, link: bool) -> None:
    """Refuses an entry that would leave its folder if somebody extracted the archive."""
    parts = name.replace("\\", "/").split("/")
    if link:
        raise CondmixError(f"{archive} holds the link {name!r}: the official archive has none, so it is not read")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        raise CondmixError(f"{archive} holds {name!r}, which escapes its folder, so the archive is not read")


def damaged(archive: Path, error: Exception) -> CondmixError:
    """The sentence for an archive that ends early or does not decompress."""
    reason = str(error) or type(error).__name__
    return CondmixError(f"{archive} is cut short or damaged ({reason}): delete it and run the stage fetch again")


def missing(archive: Path) -> CondmixError:
    return CondmixError(f"{archive} is missing: run the stage fetch")


def open_zip(path: Path) -> zipfile.ZipFile:
    """Opens a zip archive whose every entry stays inside its folder."""
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise missing(path) from None
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise damaged(path, error) from error
    for info in archive.infolist():
        check_member(path, info.filename, link=stat.S_ISLNK(info.external_attr >> 16))
    return archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """One entry's bytes, its CRC checked by zipfile."""
    path = Path(archive.filename)
    try:
        return archive.read(name)
    except KeyError:
        raise CondmixError(f"{path} holds no {name}: it is not the official archive") from None
    except Exception as error:  # zlib, struct, EOF and CRC errors: a damaged zip fails in many ways
        raise damaged(path, error) from error


def read_tar(path: Path, wanted: set[str]) -> dict[str, bytes]:
    """The wanted members of a .tar.gz in one pass, every member's name checked on the way."""
    contents = {}
    try:
        with gzip.open(path) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as archive:
            for member in archive:
                check_member(path, member.name, link=not (member.isfile() or member.isdir()))
                if member.name in wanted:
                    contents[member.name] = archive.extractfile(member).read()
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
