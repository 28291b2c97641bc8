"""Files and folders that appear whole or not at all, whatever stops the process or fills the disk; locks."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from condmix import shown
from condmix.runtime.oserrors import disk_full


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; on success it takes its place, on an exception it is removed.

    The name is always the same, so that what a killed process leaves is overwritten by the next one. A full disk,
    which libraries report in many ways, is an OSError (ENOSPC) that names `path`. Who may read it is up to the umask:
    safetensors writes files that nobody but their owner can read.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        with open(part, "rb") as written:
            os.fsync(written.fileno())  # else a power cut could leave the new name on an empty file
        part.chmod(0o666 & ~_umask())
        os.replace(part, path)
    except Exception as error:
        if disk_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    """The permissions that new files lack. It can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8)."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Replace a JSON file, indented for people; NaN and infinity, which JSON does not know, are a ValueError."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextmanager
def exclusive(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock file; where another process holds it, say on stderr that `what` is running there, and wait.

    The kernel frees a lock when its process ends, however it ends: a killed process blocks nobody.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    holder = lock.with_name(f"{lock.name}.holder")
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        by = holder.read_text() if holder.exists() else "another process"
        print(f"condmix: {what} is running in {shown(by)}; waiting for it to end", file=sys.stderr, flush=True)
        held.acquire()
    try:
        write_text(holder, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        held.release()


def remove_folder(folder: Path) -> None:
    """Remove a folder, as far as that is possible; what else stands in its place stays.

    shutil.rmtree opens whatever it is given, and a FIFO would keep it waiting for a writer.
    """
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """An empty folder at this path, removed in the end. What a killed process left there is removed first.

    Of several processes that ask for the same folder, one has it at a time; the others wait.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{folder.name}.lock")
    with FileLock(lock):
        try:
            # Earlier versions gave it a random suffix.
            for left in (folder, *folder.parent.glob(f"{folder.name}.*/")):
                remove_folder(left)
            folder.mkdir()
            yield folder
        finally:
            remove_folder(folder)
            lock.unlink()  # while it is held: who waits for it notices, and makes a new one


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which on success takes the place of `folder`; on an exception it is removed."""
    with scratch(folder.with_name(f".{folder.name}")) as part:
        yield part
        remove_folder(folder)
        os.replace(part, folder)
