"""The ledger of a download: one SQLite row per URL, so that a run goes on where the last one stopped.

    waiting  to be asked when it is `due`, on this run's monotonic clock; 0 for what was not asked in this run
    taken    being asked, or fetched and not yet in a finished shard; after a kill it waits again
    done     a picture in the shard `shard`
    failed   trouble that may pass but did not, as often as a run tries; `retry` lets it wait again
    dead     trouble that will not pass: 404, an unknown host, no picture

Changes last from `commit` on. What a kill loses before that is asked again, but for pictures in finished shards:
these are read back from the folder, whose shards are always whole. A wait does not outlast its run: times of a clock
that people and programs set would be no use to the next one.

The ledger is a file that people look into and pass on, so it holds URLs without their credentials; where a URL has
some, `begins` says where to read it in the list.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from tqdm import tqdm

from condmix import CondmixError, shown
from condmix.runtime.messages import reason, without_credentials

LEDGER = "ledger.sqlite"
SHARDS = "[0-9]" * 6 + ".tar"
STATES = ("waiting", "taken", "done", "failed", "dead")
LONGEST = 1 << 20  # bytes of a line
SCHEMA = (
    """CREATE TABLE urls (
        key INTEGER PRIMARY KEY,  -- the line's number in the list, from 0
        caption TEXT NOT NULL,
        url TEXT NOT NULL,  -- without credentials
        begins INTEGER NOT NULL DEFAULT -1,  -- the line's first byte in the list, of a URL with credentials
        state TEXT NOT NULL DEFAULT 'waiting',
        due REAL NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,  -- that ended; since the last `retry`
        error TEXT,  -- class of the last one's failure
        shard TEXT,
        UNIQUE (url, begins)
    )""",
    "CREATE INDEX waiting ON urls (due, key) WHERE state = 'waiting'",
    "CREATE TABLE list (sha256 TEXT NOT NULL, size INTEGER NOT NULL, lines INTEGER NOT NULL)",
    "PRAGMA user_version = 2",
)


class ListedUrl(NamedTuple):
    """One URL, as a download takes it, with its credentials."""

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
        self.folder, self.source = folder, source
        self.db = sqlite3.connect(folder / LEDGER, timeout=60)  # seconds for someone who looks into it
        try:
            self._open(size)
        except BaseException:
            self.db.close()
            raise

    def _open(self, size: int) -> None:
        self.db.execute("PRAGMA cache_size = -65536")  # KiB; the index of millions of URLs is filled in random order
        with open(self.source, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        new = version == 0
        if new:
            self._fill(sha256, size)
        elif version == 1:  # begun by an earlier version, whose rows hold whole URLs
            self.db.execute("ALTER TABLE urls ADD COLUMN begins INTEGER NOT NULL DEFAULT -1")
            self.db.execute("PRAGMA user_version = 2")
        elif version != 2:
            raise CondmixError(
                f"{self.folder / LEDGER} is of another version of condmix ({version}): choose another folder"
            )
        self._check()
        begun = self.db.execute("SELECT sha256, size FROM list").fetchone()
        if begun != (sha256, size):
            what = f"--size {begun[1]}, not {size}" if begun[0] == sha256 else f"another list than {self.source}"
            raise CondmixError(f"{self.folder} was begun with {what}: choose another folder")
        if not new:
            self._compare()
        self._follow_shards()

    def close(self) -> None:
        self.db.close()

    def commit(self) -> None:
        self.db.commit()

    def _fill(self, sha256: str, size: int) -> None:
        if any(self.folder.glob(SHARDS)):
            raise CondmixError(f"{self.folder} has shards, but its ledger.sqlite is gone or new: choose another folder")
        lines = 0

        def rows() -> Iterator[tuple[int, str, str, int]]:
            nonlocal lines
            progress = tqdm(read_list(self.source), shown(self.source.name), unit="line", mininterval=0.5)
            for key, (begins, caption, url) in enumerate(progress):
                lines, public = key + 1, without_credentials(url)
                yield key, caption, public, -1 if public == url else begins

        self.db.execute("BEGIN")
        with self.db:
            for statement in SCHEMA:
                self.db.execute(statement)
            self.db.executemany("INSERT OR IGNORE INTO urls (key, caption, url, begins) VALUES (?, ?, ?, ?)", rows())
            self.db.execute("INSERT INTO list VALUES (?, ?, ?)", (sha256, size, lines))
            if not lines:
                raise CondmixError(f"{self.source} is empty: expected lines of caption<TAB>URL")

    def _check(self) -> None:
        """CondmixError where the ledger does not hold what it was written with, so that no row is lost unnoticed."""
        (verdict,) = self.db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        lists = self.db.execute("SELECT typeof(sha256), typeof(size), typeof(lines) FROM list").fetchall()
        odd = self.db.execute(
            f"""SELECT count(*) FROM urls WHERE state NOT IN {STATES} OR typeof(attempts) != 'integer'
                OR typeof(caption) != 'text' OR typeof(url) != 'text' OR typeof(begins) != 'integer'"""
        ).fetchone()[0]
        if lists != [("text", "integer", "integer")] or odd:
            raise self._damaged(f"{odd:,} of its rows make no sense" if odd else "it does not say which list it is of")

    def _compare(self) -> None:
        """CondmixError where a row does not hold its line of the list: SQLite has no checksums of its own."""
        rows = self.db.execute("SELECT key, caption, url FROM urls ORDER BY key")
        row = next(rows, None)
        for key, (_, caption, url) in enumerate(read_list(self.source)):
            if row is None or row[0] != key:  # a repeated URL has no row
                continue
            if (row[1], without_credentials(row[2])) != (caption, without_credentials(url)):
                raise self._damaged(f"its row {key} is not line {key + 1} of {self.source}")
            row = next(rows, None)
        if row is not None:
            raise self._damaged(f"{self.source} has no line for its row {row[0]}")

    def _damaged(self, what: str) -> CondmixError:
        return CondmixError(
            f"{self.folder / LEDGER} is damaged ({what}): choose another folder; the finished shards in this one "
            "are whole and can be kept"
        )

    def _follow_shards(self) -> None:
        """What was taken waits again, unless a shard on disk has it; so does what a shard had that is gone."""
        on_disk = {path.name: path for path in self.folder.glob(SHARDS)}
        known = {name for (name,) in self.db.execute("SELECT DISTINCT shard FROM urls WHERE shard IS NOT NULL")}
        self.db.execute("UPDATE urls SET state = 'waiting' WHERE state = 'taken'")
        for name in known - on_disk.keys():
            self.db.execute("UPDATE urls SET state = 'waiting', due = 0, shard = NULL WHERE shard = ?", (name,))
        for name in on_disk.keys() - known:  # killed between finishing the shard and the commit
            self.done(name, self._keys_in(on_disk[name]))
        self.db.execute("UPDATE urls SET due = 0 WHERE state = 'waiting' AND due != 0")
        self.commit()
        for left in self.folder.glob(".*.tar.part"):
            left.unlink()

    def _keys_in(self, path: Path) -> list[int]:
        """Which rows' pictures a shard has that the ledger does not know; CondmixError where it is not of this list."""
        try:
            with tarfile.open(path, "r:") as tar:
                entries = {Path(entry.name): entry for entry in tar}
                facts = [
                    json.load(cast(IO[bytes], tar.extractfile(entries[name])))
                    for name in entries
                    if name.suffix == ".json"
                ]
            urls = {f"{int(fact['key']):09d}.jpg": fact["url"] for fact in facts}
            if urls.keys() != {str(name) for name in entries if name.suffix == ".jpg"}:
                raise ValueError("its pictures are not named as those of a download")
            for name, url in urls.items():
                row = self.db.execute("SELECT url FROM urls WHERE key = ?", (int(name[:-4]),)).fetchone()
                if row is None or without_credentials(row[0]) != without_credentials(url):
                    raise ValueError(f"{name} is not of its line in the list")
        except (tarfile.TarError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise CondmixError(
                f"{path} is not a shard of this download ({reason(error)}): move it out of the folder; "
                "pictures of the list that are in no other shard are fetched again"
            ) from error
        return [int(name[:-4]) for name in urls]

    def take(self, count: int) -> list[ListedUrl]:
        """Up to `count` rows that are due; what was never asked comes first, so that no wait holds it up."""
        rows = self.db.execute(
            """SELECT key, caption, url, attempts, begins FROM urls
               WHERE state = 'waiting' AND due <= ? ORDER BY due, key LIMIT ?""",
            (time.monotonic(), count),
        ).fetchall()
        self.db.executemany("UPDATE urls SET state = 'taken' WHERE key = ?", [row[:1] for row in rows])
        return [
            ListedUrl(key, caption, url if begins < 0 else self._whole(url, begins), attempts)
            for key, caption, url, attempts, begins in rows
        ]

    def _whole(self, public: str, begins: int) -> str:
        """The URL with its credentials, from the list."""
        with open(self.source, "rb") as file:
            file.seek(begins)
            url = file.readline(LONGEST).decode(errors="replace").rstrip("\r\n").partition("\t")[2]
        if without_credentials(url) != public:
            raise CondmixError(f"{self.source} was changed while it was being downloaded: put it back, and run again")
        return url

    def next_wait(self) -> float | None:
        """Seconds until the next waiting row is due; None where nothing waits."""
        due = self.db.execute("SELECT min(due) FROM urls WHERE state = 'waiting'").fetchone()[0]
        return None if due is None else max(0.0, due - time.monotonic())

    def done(self, shard: str, keys: list[int]) -> None:
        """The pictures of a finished shard."""
        self.db.executemany(
            "UPDATE urls SET state = 'done', shard = ?, error = NULL, attempts = attempts + 1 WHERE key = ?",
            [(shard, key) for key in keys],
        )

    def again(self, key: int, error: str, wait: float) -> None:
        """A failure that may pass, to be tried again after so many seconds."""
        self._failure(key, "waiting", error, time.monotonic() + wait)

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
        counts = dict.fromkeys(STATES, 0)
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
        return int(self.db.execute("SELECT lines - (SELECT count(*) FROM urls) FROM list").fetchone()[0])


def read_list(source: Path) -> Iterator[tuple[int, str, str]]:
    """(first byte, caption, URL) of each line `caption<TAB>URL` (UTF-8), one at a time.

    CondmixError names the line that is none.
    """
    begins = 0
    with open(source, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST + 1), b""), start=1):
            where = f"{source}, line {number}"
            if len(line) > LONGEST:
                raise CondmixError(f"{where}: expected caption<TAB>http(s)-URL, found more than {LONGEST:,} bytes")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise CondmixError(f"{where}: not UTF-8 ({error.reason})") from error
            caption, tab, url = text.partition("\t")
            if not tab or not url.startswith(("http://", "https://")) or not url.isprintable():
                start = without_credentials(text.strip())[:80]
                raise CondmixError(f"{where}: expected caption<TAB>http(s)-URL, found {start!r}")
            yield begins, caption, url
            begins += len(line)
