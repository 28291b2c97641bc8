"""The ledger of a download: one SQLite row per URL, so that a run goes on where the last one stopped.

    waiting  to be asked when it is `due` (seconds since the epoch; 0 for what was never asked)
    taken    being asked, or fetched and not yet in a finished shard; after a kill it waits again
    done     a picture in the shard `shard`
    failed   trouble that may pass but did not, as often as a run tries; `retry` lets it wait again
    dead     trouble that will not pass: 404, an unknown host, no picture

Changes last from `commit` on. What a kill loses before that is asked again, but for pictures in finished shards:
these are read back from the folder, whose shards are always whole.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from condmix import CondmixError

SCHEMA = (
    """CREATE TABLE urls (
        key INTEGER PRIMARY KEY,  -- the line's number in the list, from 0
        caption TEXT NOT NULL,
        url TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL DEFAULT 'waiting',
        due REAL NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,  -- that ended; since the last `retry`
        error TEXT,  -- class of the last one's failure
        shard TEXT
    )""",
    "CREATE INDEX waiting ON urls (due, key) WHERE state = 'waiting'",
    "CREATE TABLE list (sha256 TEXT NOT NULL, size INTEGER NOT NULL, lines INTEGER NOT NULL)",
    "PRAGMA user_version = 1",
)
SHARDS = "[0-9]" * 6 + ".tar"


class Row(NamedTuple):
    """One URL, as a download takes it."""

    key: int
    caption: str
    url: str
    attempts: int


class Ledger:
    """`folder`/ledger.sqlite for the pictures of `source`, with the shorter side at `size` pixels.

    Filled from the list in one transaction when it is new. CondmixError where the list can't be read, or the
    folder was begun with another list or size.
    """

    def __init__(self, folder: Path, source: Path, size: int):
        self.folder = folder
        self.db = sqlite3.connect(folder / "ledger.sqlite", timeout=60)  # seconds for someone who looks into it
        self.db.execute("PRAGMA cache_size = -65536")  # KiB; the index of millions of URLs is filled in random order
        with open(source, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if self.db.execute("PRAGMA user_version").fetchone() == (0,):
            self._fill(source, sha256, size)
        begun = self.db.execute("SELECT sha256, size FROM list").fetchone()
        if begun != (sha256, size):
            what = f"--size {begun[1]}, not {size}" if begun[0] == sha256 else f"another list than {source}"
            raise CondmixError(f"{folder} was begun with {what}: choose another folder")
        self._follow_shards()

    def close(self) -> None:
        self.db.close()

    def commit(self) -> None:
        self.db.commit()

    def _fill(self, source: Path, sha256: str, size: int) -> None:
        if any(self.folder.glob(SHARDS)):
            raise CondmixError(f"{self.folder} has shards, but its ledger.sqlite is gone or new: choose another folder")
        lines = 0

        def rows() -> Iterator[tuple[int, str, str]]:
            nonlocal lines
            for key, (caption, url) in enumerate(tqdm(read_list(source), source.name, unit="line", mininterval=0.5)):
                lines = key + 1
                yield key, caption, url

        self.db.execute("BEGIN")
        with self.db:
            for statement in SCHEMA:
                self.db.execute(statement)
            self.db.executemany("INSERT OR IGNORE INTO urls (key, caption, url) VALUES (?, ?, ?)", rows())
            self.db.execute("INSERT INTO list VALUES (?, ?, ?)", (sha256, size, lines))
            if not lines:
                raise CondmixError(f"{source} is empty: expected lines of caption<TAB>URL")

    def _follow_shards(self) -> None:
        """What was taken waits again, unless a shard on disk has it; so does what a shard had that is gone."""
        on_disk = {path.name: path for path in self.folder.glob(SHARDS)}
        known = {name for (name,) in self.db.execute("SELECT DISTINCT shard FROM urls WHERE shard IS NOT NULL")}
        self.db.execute("UPDATE urls SET state = 'waiting' WHERE state = 'taken'")
        for name in known - on_disk.keys():
            self.db.execute("UPDATE urls SET state = 'waiting', due = 0, shard = NULL WHERE shard = ?", (name,))
        for name in on_disk.keys() - known:  # killed between finishing the shard and the commit
            with tarfile.open(on_disk[name]) as tar:
                self.done(name, [int(Path(entry).stem) for entry in tar.getnames() if entry.endswith(".jpg")])
        self.commit()
        for left in self.folder.glob(".*.tar.part"):
            left.unlink()

    def take(self, count: int, now: float) -> list[Row]:
        """Up to `count` rows that are due; what was never asked comes first, so that no wait holds it up."""
        rows = self.db.execute(
            """SELECT key, caption, url, attempts FROM urls
               WHERE state = 'waiting' AND due <= ? ORDER BY due, key LIMIT ?""",
            (now, count),
        ).fetchall()
        self.db.executemany("UPDATE urls SET state = 'taken' WHERE key = ?", [row[:1] for row in rows])
        return [Row(*row) for row in rows]

    def next_due(self) -> float | None:
        """When the next waiting row is due; None where nothing waits."""
        return self.db.execute("SELECT min(due) FROM urls WHERE state = 'waiting'").fetchone()[0]

    def done(self, shard: str, keys: list[int]) -> None:
        """The pictures of a finished shard."""
        self.db.executemany(
            "UPDATE urls SET state = 'done', shard = ?, error = NULL, attempts = attempts + 1 WHERE key = ?",
            [(shard, key) for key in keys],
        )

    def again(self, key: int, error: str, due: float) -> None:
        """A failure that may pass, to be tried again at `due`."""
        self._failure(key, "waiting", error, due)

    def failed(self, key: int, error: str) -> None:
        """A failure that may pass and is not tried again in this run."""
        self._failure(key, "failed", error, 0)

    def dead(self, key: int, error: str) -> None:
        """A failure that will not pass."""
        self._failure(key, "dead", error, 0)

    def _failure(self, key: int, state: str, error: str, due: float) -> None:
        self.db.execute(
            "UPDATE urls SET state = ?, error = ?, due = ?, attempts = attempts + 1 WHERE key = ?",
            (state, error, due, key),
        )

    def retry(self) -> None:
        """Let what failed wait again, with all its attempts."""
        self.db.execute("UPDATE urls SET state = 'waiting', due = 0, attempts = 0 WHERE state = 'failed'")
        self.commit()

    def next_shard(self) -> int:
        """The number after the last shard's."""
        return 1 + max((int(path.stem) for path in self.folder.glob(SHARDS)), default=-1)

    def states(self) -> dict[str, int]:
        """{state: URLs}."""
        counts = dict.fromkeys(("waiting", "taken", "done", "failed", "dead"), 0)
        return counts | dict(self.db.execute("SELECT state, count(*) FROM urls GROUP BY state"))

    def errors(self) -> dict[str, int]:
        """{error class: URLs that failed with it in the end}, the most frequent first."""
        return dict(
            self.db.execute(
                "SELECT error, count(*) FROM urls WHERE state IN ('failed', 'dead') GROUP BY error ORDER BY 2 DESC, 1"
            )
        )

    def shards(self) -> dict[str, int]:
        """{shard: pictures}."""
        return dict(
            self.db.execute("SELECT shard, count(*) FROM urls WHERE shard IS NOT NULL GROUP BY shard ORDER BY 1")
        )

    def repeated(self) -> int:
        """How many lines repeat a URL: only the first of them counts."""
        return self.db.execute("SELECT lines - (SELECT count(*) FROM urls) FROM list").fetchone()[0]


def read_list(source: Path) -> Iterator[tuple[str, str]]:
    """(caption, URL) of each line `caption<TAB>URL` (UTF-8), one at a time; CondmixError names the line that is not."""
    number = 0
    try:
        with open(source, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                caption, tab, url = line.rstrip("\r\n").partition("\t")
                if not tab or not url.startswith(("http://", "https://")):
                    raise CondmixError(
                        f"{source}, line {number}: expected caption<TAB>http(s)-URL, found {line.strip()[:80]!r}"
                    )
                yield caption, url
    except UnicodeDecodeError as error:
        raise CondmixError(f"{source}, after line {number}: not UTF-8 ({error.reason})") from error
