"""Errors of the operating system -> one sentence: what happened to which file, and what to do.

Libraries report a full disk or exhausted memory in words of their own; these are recognised here too.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

# {path} is the file or folder; "it" where the error does not name one
SENTENCES = {
    errno.ENOENT: "there is no {path}",
    errno.EACCES: "no permission to use {path}: change its owner or its mode (chown, chmod) and run again",
    errno.EROFS: "{path} is on a read-only file system: run again where files can be written",
    errno.EISDIR: "{path} is a folder, but a file is expected there: move it away and run again",
    errno.ENOTDIR: "{path} can't be reached, because a part of it is a file and not a folder: move that file away",
    errno.EEXIST: "{path} exists already and is not what is expected there: move it away and run again",
    errno.ENOTEMPTY: "the folder {path} is not empty and can't be replaced: move it away and run again",
    errno.ELOOP: "{path} is a symbolic link that leads back to itself: delete it and run again",
    errno.ENAMETOOLONG: "{path} is too long a name for the file system: use shorter names",
    errno.ENOSPC: "the disk is full, so {path} could not be written: free some space and run again",
    errno.EFBIG: "{path} is larger than the file system or the limit of ulimit -f allows: raise it and run again",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n 4096) and run again",
    errno.ENOMEM: "there is not enough memory: end other programs or ask for less at a time",
    errno.EAGAIN: "the system allows no further process or thread: end other programs and run again",
    errno.EIO: "the disk failed at {path} (input/output error): check the disk, then run again",
    errno.EBUSY: "{path} is in use: end the program that uses it and run again",
    errno.ESTALE: "{path} was lost by the network file system: mount it again and run again",
}
SAME = {errno.EPERM: errno.EACCES, errno.EDQUOT: errno.ENOSPC, errno.ENFILE: errno.EMFILE}

DISK_FULL = re.compile(
    r"No space left on device|Disk quota exceeded"  # safetensors, h5py, archives
    r"|database or disk is full"  # SQLite
    r"|\d+ requested and \d+ written"  # numpy, an OSError without a number
    r"|inline_container\.cc.*unexpected pos|PytorchStreamWriter failed writing"  # torch.save
)
NO_MEMORY = re.compile(r"DefaultCPUAllocator: can't allocate memory|CUDA out of memory|Unable to allocate ")


def sentence(error: BaseException) -> str | None:
    """What a person reads of an error of the operating system; None for every other error."""
    if disk_full(error):
        return _filled(errno.ENOSPC, error)
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        detail = one_line(error)
        return SENTENCES[errno.ENOMEM] + (f" ({detail})" if detail else "")
    if not isinstance(error, OSError):
        return None
    number = None if error.errno is None else SAME.get(error.errno, error.errno)
    if number is not None and number in SENTENCES:
        return _filled(number, error)
    return f"{_path(error) or 'the system'}: {error.strerror or one_line(error) or type(error).__name__}"


def disk_full(error: BaseException) -> bool:
    """Whether a full disk or an exhausted quota lies behind an error, however a library puts it."""
    return any(
        isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) or DISK_FULL.search(str(cause))
        for cause in _causes(error)
    )


def one_line(error: BaseException) -> str:
    """An error's text without line breaks, cut where it is long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:199] + "…"


def _filled(number: int, error: BaseException) -> str:
    named = (path for cause in _causes(error) if isinstance(cause, OSError) and (path := _path(cause)))
    return SENTENCES[number].format(path=next(named, "it"))


def _path(error: OSError) -> str | None:
    """The file that the error is about; of a renaming that failed, the new name."""
    name = error.filename2 if error.filename2 is not None else error.filename
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__
