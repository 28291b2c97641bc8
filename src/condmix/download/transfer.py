"""One file from a URL: resumed where it stopped, and verified against its size and checksum."""

import email.utils
import errno
import hashlib
import logging
import os
import random
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
from tqdm import tqdm

from condmix import CondmixError, shown
from condmix.runtime.messages import reason, without_credentials
from condmix.settings.schema import File

log = logging.getLogger(__name__)
CHUNK = 1 << 16  # bytes; a cut connection loses at most so many that had come
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Retries:
    """Retry limits for transient network errors. Waits are in seconds."""

    attempts: int = 6  # in a row, without a single new byte
    first_wait: float = 1.0  # doubled at each attempt, with +-50% jitter so that clients don't come back together
    longest_wait: float = 60.0
    longest_asked: float = 600.0  # a server may ask for longer waits (Retry-After), up to this
    timeout: float = 30.0  # without an answer or a byte


class TransientError(Exception):
    """A time-out, a reset, 429 or 5xx, which may pass. `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


def fetch(file: File, archives: Path, partial: Path, retries: Retries | None = None) -> Path:
    """Makes sure that the file is in `archives` and right.

    Raises CondmixError where that can't be had. What has come of a download is kept for the next try, unless its
    checksum is wrong.
    """
    name, size = file.name, file.size
    if Path(name).name != name or name in ("", "..") or "\0" in name:
        raise CondmixError(f"data.files: the name {name!r} must be a plain file name")
    algorithm, expected = file.checksum.split(":")
    target, part = archives / name, partial / f"{name}.part"
    if target.exists():
        if size_of(target) == size and digest_of(target, algorithm).hexdigest() == expected:
            return target
        log.warning("%s is not the file that the profile describes: it is fetched again", shown(str(target)))
    archives.mkdir(parents=True, exist_ok=True)
    partial.mkdir(parents=True, exist_ok=True)

    checksum = download(file.url, part, size, algorithm, retries or Retries())
    if checksum != expected:
        part.unlink()
        raise CondmixError(
            f"{without_credentials(file.url)} has {algorithm} {checksum}, but the profile expects {expected}: "
            "correct the checksum, or the URL if it is another file; the download is removed"
        )
    os.replace(part, target)
    return target


def download(url: str, part: Path, size: int, algorithm: str, retries: Retries) -> str:
    """Brings `part` to `size` bytes and returns its digest; tries again while there is hope."""
    failures, public = 0, without_credentials(url)
    while True:
        before = size_of(part)
        try:
            return stream(url, part, size, algorithm, retries.timeout)
        except TransientError as error:
            failures = 1 if size_of(part) > before else failures + 1
            if failures >= retries.attempts:
                raise CondmixError(
                    f"{public}: {error}, {failures} times in a row; what has come is kept, so run the stage again later"
                ) from error
            if (error.wait or 0) > retries.longest_asked:
                raise CondmixError(f"{public}: {error}; the server asks to wait {error.wait:.0f} s") from error
            backoff = min(retries.longest_wait, retries.first_wait * 2 ** (failures - 1)) * random.uniform(0.5, 1.5)
            time.sleep(max(backoff, error.wait or 0))


def stream(url: str, part: Path, size: int, algorithm: str, timeout: float) -> str:
    """One attempt: appends what is missing and returns the digest of the whole."""
    if size_of(part) > size:
        part.unlink()
    start = size_of(part)
    if start == size:
        return str(digest_of(part, algorithm).hexdigest())
    free = shutil.disk_usage(part.parent).free
    if free < size - start:
        raise disk_full(part, size - start, free)
    with open_url(url, start, size, timeout) as (start, chunks):
        digest = digest_of(part, algorithm) if start else hashlib.new(algorithm, usedforsecurity=False)
        written = append(part, start, size, digest, chunks)
    if written < size:
        raise TransientError(f"the connection ended after {written} of {size} bytes")
    if written > size:
        part.unlink()
        raise CondmixError(
            f"{without_credentials(url)} has more than the {size} bytes that the profile expects: check URL and size"
        )
    return str(digest.hexdigest())


def append(part: Path, start: int, size: int, digest: Any, chunks: Iterable[bytes]) -> int:
    """Writes the chunks behind the first `start` bytes, with a progress bar; returns the length it comes to."""
    written = start
    units: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    bar = tqdm(desc=shown(part.stem), total=size, initial=start, mininterval=0.5, **units)
    with bar, open(part, "ab" if start else "wb") as file:
        for chunk in chunks:
            try:
                file.write(chunk)
                file.flush()
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise disk_full(part, size - written, shutil.disk_usage(part.parent).free) from error
            digest.update(chunk)
            written += len(chunk)
            bar.update(len(chunk))
            if written > size:
                break
    return written


@contextmanager
def open_url(url: str, start: int, size: int, timeout: float) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Yields where the answer begins (`start`, or 0 where the server can't resume) and its bytes in chunks."""
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise CondmixError(f"{without_credentials(url)} is no URL ({reason(error)})") from None
    if scheme == "file":
        with open_file(url) as file:
            length = os.fstat(file.fileno()).st_size
            check_length(without_credentials(url), length, size)
            file.seek(start)
            yield start, iter(lambda: file.read(CHUNK), b"")
    elif scheme in ("http", "https"):
        with open_http(url, start, size, timeout) as answer:
            yield answer
    else:
        raise CondmixError(f"{without_credentials(url)}: only http://, https:// and file:// URLs can be fetched")


def open_file(url: str) -> BinaryIO:
    path, public = Path(url2pathname(urlsplit(url).path)), without_credentials(url)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for its writer
            raise CondmixError(f"{public} is not a file: check the URL")
        return open(path, "rb")
    except OSError as error:
        raise CondmixError(f"{public} can't be read ({error.strerror})") from error
    except ValueError as error:  # a NUL in the name
        raise CondmixError(f"{public} can't be read ({error})") from error


@contextmanager
def open_http(url: str, start: int, size: int, timeout: float) -> Iterator[tuple[int, Iterator[bytes]]]:
    """GET from byte `start`: TransientError for what may pass, else CondmixError; error pages are not read."""
    public = without_credentials(url)
    headers = {"Accept-Encoding": "identity"}  # the bytes of the file itself, not recompressed for the way
    if start:
        headers["Range"] = f"bytes={start}-"
    with _passing(public):
        response = requests.get(
            url, headers=headers, stream=True, timeout=timeout, hooks={"response": _leave_redirect_s_body}
        )
    with response:
        if response.status_code == 416:  # the file there is shorter than what we have
            raise CondmixError(
                f"{public} is shorter than the {size} bytes that the profile expects: check URL and size"
            )
        if response.status_code in TRANSIENT:
            wait = asked_wait(response.headers.get("Retry-After"), response.headers.get("Date"))
            raise TransientError(f"{response.status_code} {response.reason}", wait)
        if not response.ok:
            raise CondmixError(f"{public} answers {response.status_code} {response.reason}: check the URL")
        begins = start if response.status_code == 206 else 0
        if begins and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise TransientError("the server resumed at another place than asked")
        if response.headers.get("Content-Length", "").isdigit():
            check_length(public, begins + int(response.headers["Content-Length"]), size)
        yield begins, _chunks(public, response)


def _leave_redirect_s_body(response: requests.Response, **_: Any) -> None:
    """requests reads all of a redirect's body, however long, before it follows; so it gets an empty one."""
    if response.is_redirect:
        response._content = b""


def _chunks(public: str, response: requests.Response) -> Iterator[bytes]:
    with _passing(public):
        yield from response.iter_content(CHUNK)


@contextmanager
def _passing(public: str) -> Iterator[None]:
    """Sorts the network's errors into those that may pass and those that won't.

    The errors name URLs whole, also those that redirects led to, so they are not passed on as causes.
    """
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise CondmixError(f"{public}: the secure connection failed ({reason(error)})") from None
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise TransientError(f"{type(error).__name__}: {reason(error)}") from None
    except (requests.RequestException, ValueError) as error:  # ValueError: urllib3's, for a host such as "a..b"
        raise CondmixError(f"{public} can't be fetched ({reason(error)})") from None


def asked_wait(header: str | None, date: str | None = None) -> float | None:
    """Retry-After, given in seconds or as a date, in seconds from now; None where it is absent or unreadable.

    `date` is the answer's Date: where both are dates, they are compared with each other and not with our clock.
    urllib3's Retry compares with our clock, raises over what is unreadable, and waits however long it is asked to.
    """
    if header is None:
        return None
    if header.strip().isascii() and header.strip().isdigit():
        return float(header)
    until, now = _seconds(header), _seconds(date)
    return None if until is None else max(0.0, until - (time.time() if now is None else now))


def _seconds(date: str | None) -> float | None:
    """An HTTP date in seconds since the epoch; None where it is none."""
    try:
        return None if date is None else email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):  # what parsedate_to_datetime raises; the year 1
        return None


def check_length(public: str, length: int, size: int) -> None:
    if length != size:
        raise CondmixError(f"{public} has {length} bytes, but the profile expects {size}: check URL and size")


def digest_of(path: Path, algorithm: str) -> Any:
    """The hash object of a file, ready to take more bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none; to write to a FIFO would wait for its reader, so it is refused."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(status.st_mode):
        raise CondmixError(f"{path} is not a regular file: move it away and run the stage again")
    return status.st_size


def disk_full(part: Path, needed: int, free: int) -> CondmixError:
    return CondmixError(
        f"the disk is full: {part.stem} needs {needed} more bytes in {part.parent}, {free} are free; "
        "free some space and run again"
    )
