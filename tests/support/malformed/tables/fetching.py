"""Archives and lists of URLs to be fetched."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import own_data
from malformed import damage as d
from malformed.runner import Case
from malformed.tables import (
    Command,
    conf_changed,
    set_to,
)
from malformed.tables.pictures import picture

UNUSED = "bytes that SQLite does not use: its pages are checked, and each row is compared with the list"


def cases(server: str, flags: Command) -> Iterator[Case]:
    yield from fetches()
    yield from downloads(server, flags)


def fetches() -> Iterator[Case]:
    payload = b"an archive" * 100

    def case(
        name: str, files: Any, named: tuple[str, ...] = (), before: Callable[[Path], None] = lambda _: None
    ) -> Case:
        def damage(project: Path) -> None:
            (project / "a.zip").write_bytes(payload)
            d.remove(project / "data/tiny/archives")
            before(project)
            given = files(project) if callable(files) else files
            conf_changed(set_to("data.files", given))(project)

        return Case(
            "fetch",
            name,
            "coco",
            damage,
            (("check",), ("fetch",)),
            "a.zip",
            named,
            "fetched as it should be",
            compared=False,
        )

    def file(**changes: Any) -> Callable[[Path], list]:
        def given(project: Path) -> list:
            whole = {
                "name": "a.zip",
                "url": (project / "a.zip").as_uri(),
                "size": len(payload),
                "checksum": f"sha256:{hashlib.sha256(payload).hexdigest()}",
            }
            return [whole | changes]

        return given

    names = {
        "..": "..",
        "dot": ".",
        "empty": "",
        "NUL": "a\0b",
        "absolute": "/tmp/x.zip",
        "above": "../x.zip",
        "a folder": "a/b.zip",
        "long": "a" * 300,
        "an escape sequence": "a\x1b[31m.zip",
        "a newline": "a\nb.zip",
        "a carriage return": "a\rb.zip",
        "backslash": "..\\x",
        "number": 5,
        "null": None,
        "a list": [],
        "a lone surrogate": "\ud800",
        "a dash": "-x",
    }
    for what, value in names.items():
        yield case(f"name {what}", file(name=value))
    urls = {
        "empty": "",
        "no scheme": "nothing",
        "host ..": "http://a..b/x",
        "host empty": "http:///x",
        "IPv6 broken": "http://[::1/x",
        "port 99999": "http://127.0.0.1:99999/x",
        "port text": "http://127.0.0.1:x/",
        "ftp": "ftp://127.0.0.1/x",
        "data": "data:,x",
        "javascript": "javascript:x",
        "file of nothing": "file:///nowhere",
        "file of a folder": "file:///proc",
        "file of a device": "file:///dev/zero",
        "file with a host": "file://elsewhere/x",
        "NUL": "http://127.0.0.1/\0",
        "long host": "http://" + "a" * 300 + "/",
        "spaces": "http://127.0.0.1 /",
        "newline": "http://127.0.0.1/\nx",
        "carriage return": "http://127.0.0.1/\rx",
        "credentials": "http://user:secret@127.0.0.1:9/x",
        "unicode host": "http://\u2603..\u2603/",
        "number": 5,
        "null": None,
        "a list": [],
        "a lone surrogate": "http://127.0.0.1/\ud800",
        "no path": "file://",
    }
    for what, value in urls.items():
        if what not in ("credentials",):
            yield case(f"url {what}", file(url=value))
    for what, value in {
        "0": 0,
        "negative": -1,
        "one more": len(payload) + 1,
        "one less": len(payload) - 1,
        "huge": 10**30,
        "text": "x",
        "fraction": 0.5,
        "2^63": 2**63,
        "null": None,
        "true": True,
    }.items():
        yield case(f"size {what}", file(size=value))
    for what, value in {
        "of another": "sha256:" + "0" * 64,
        "short": "sha256:12",
        "of no kind": "crc:12",
        "empty": "",
        "null": None,
        "upper": "SHA256:" + "A" * 64,
        "md5 of sha256": "md5:" + "0" * 64,
        "text": "x",
    }.items():
        yield case(f"checksum {what}", file(checksum=value))
    for what, value in {
        "a text": "x",
        "null": None,
        "of null": [None],
        "of lists": [[]],
        "an object": {"a": 1},
        "empty": [],
        "of nothing": [{}],
    }.items():
        yield case(f"files {what}", value)
    yield case("the same twice", lambda project: file()(project) * 2)
    places = {
        "archives is a file": lambda p: (p / "data/tiny/archives").write_text("x"),
        "partial is a file": lambda p: (d.remove(p / "data/tiny/partial"), (p / "data/tiny/partial").write_text("x")),
        "part is a folder": lambda p: (p / "data/tiny/partial/a.zip.part").mkdir(parents=True),
        "part is a FIFO": lambda p: (
            (p / "data/tiny/partial").mkdir(exist_ok=True),
            os.mkfifo(p / "data/tiny/partial/a.zip.part"),
        ),
        "part is longer": lambda p: own_data.write(p / "data/tiny/partial", {"a.zip.part": payload + b"x"}),
        "part is wrong": lambda p: own_data.write(p / "data/tiny/partial", {"a.zip.part": b"x" * 10}),
        "part of the length is wrong": lambda p: own_data.write(
            p / "data/tiny/partial", {"a.zip.part": b"x" * len(payload)}
        ),
        "the archive is a folder": lambda p: (p / "data/tiny/archives/a.zip").mkdir(parents=True),
        "the archive is a FIFO": lambda p: (
            (p / "data/tiny/archives").mkdir(parents=True),
            os.mkfifo(p / "data/tiny/archives/a.zip"),
        ),
        "the archive is wrong": lambda p: own_data.write(p / "data/tiny/archives", {"a.zip": b"x"}),
        "the archive links to itself": lambda p: (
            (p / "data/tiny/archives").mkdir(parents=True),
            (p / "data/tiny/archives/a.zip").symlink_to("a.zip"),
        ),
        "archives links to nothing": lambda p: (p / "data/tiny/archives").symlink_to("nowhere"),
        "data is a file": lambda p: (shutil.rmtree(p / "data"), (p / "data").write_text("x")),
    }
    for what, before in places.items():
        yield case(what, file(), before=before)


def downloads(server: str, flags: Command) -> Iterator[Case]:
    command = ("download", "l.tsv", "out", "--min-success", "0", *flags)

    def case(
        name: str,
        damage: Callable[[Path], None],
        arguments: Command = command,
        allowed: str = "",
        world: str = "downloads",
        named: tuple[str, ...] = (),
    ) -> Case:
        return Case("download", name, world, damage, (arguments,), "", named, allowed, compared=False)

    def listed(content: bytes | str) -> Callable[[Path], None]:
        return lambda project: d.replaced(content)(project / "l.tsv")

    good = "".join(f"caption {i}\t{server}/w/ok/{i}\n" for i in range(4))
    tried = "each URL is tried, and what failed is counted"
    lists: dict[str, tuple[bytes | str, str]] = {
        "empty": ("", ""),
        "blank lines": ("\n\n\n", ""),
        "no tabs": ("one\ntwo\n", ""),
        "three columns": (f"a\tb\t{server}/w/ok/1\n", ""),
        "columns exchanged": (f"{server}/w/ok/1\ta\n", ""),
        "no URL": ("a\t\n", ""),
        "no caption": (f"\t{server}/w/ok/1\n", tried),
        "Latin-1": (b"caf\xe9\t" + f"{server}/w/ok/1\n".encode(), ""),
        "UTF-16": (good.encode("utf-16"), ""),
        "a byte order mark": (b"\xef\xbb\xbf" + good.encode(), tried),
        "binary": (bytes(range(256)) * 4, ""),
        "carriage returns": (good.replace("\n", "\r\n"), tried),
        "a carriage return in a caption": (f"a\rb\t{server}/w/ok/1\n", tried),
        "old line ends": (good.replace("\n", "\r"), ""),
        "a NUL": ("a\0b\t" + f"{server}/w/ok/1\n", tried),
        "no last line end": (good[:-1], tried),
        "a line of a megabyte": ("x" * 1_000_000 + f"\t{server}/w/ok/1\n", tried),
        "the same URL twice": (good + good, tried),
        "an escape sequence": ("\x1b[31mred\t" + f"{server}/w/ok/1\n", tried),
        "JSON": ('{"url": 1}\n', ""),
        "CSV": ("caption,url\na,http://127.0.0.1/\n", ""),
        "gzipped": (gzip.compress(good.encode(), mtime=0), ""),
        "a vertical tab": (f"a\x0bb\x85c\u2028d\t{server}/w/ok/1\n", tried),
    }
    for what, (content, allowed) in lists.items():
        yield case(f"list: {what}", listed(content), allowed=allowed, named=("l.tsv",))
    urls = [
        "nothing",
        "http://",
        "http://a..b/x",
        "http://[::1/x",
        "http://[::1]:99999/",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1:x/",
        "ftp://127.0.0.1/x",
        "file:///etc/hostname",
        "data:image/png;base64,AAAA",
        "javascript:x",
        "http://" + "a" * 300 + ".com/",
        "http://127.0.0.1:9/closed",
        "http://user:secret@127.0.0.1:9/x",
        "http://\u2603/",
        "http://127.0.0.1/\u2603 x",
        "http://127.0.0.1:9/a\rb",
        "http://127.0.0.1:9/\x1b[31mx",
        "http://0/",
        "http://127.1:9/",
        "http://2130706433:9/",
        "http://[::ffff:127.0.0.1]:9/",
        "http://169.254.169.254/latest/",
        "//127.0.0.1/x",
        "HTTP://127.0.0.1:9/X",
        "http://127.0.0.1:9/" + "x" * 100_000,
        "http://%00/",
        "http://127.0.0.1%2f/",
        "http:127.0.0.1:9",
        "http://xn--a/",
        "http://-a/",
        "http://a_b.invalid/",
    ]
    for url in urls:
        yield case(f"URL {url[:50]}", listed(f"a\t{url}\n"), allowed=tried)
    for behaviour in (
        "page",
        "liar",
        "noai",
        "loop",
        "elsewhere",
        "bomb",
        "large-bomb",
        "pixel",
        "narrow",
        "garbage",
        "404",
        "half",
        "truncated",
        "huge",
        "png",
        "untyped",
        "410",
        "moved",
        "closed",
    ):
        if behaviour == "closed":
            continue  # asks for a day's wait
        yield case(
            f"a server that is {behaviour}", listed(f"a\t{server}/w/{behaviour}/1\nb\t{server}/w/ok/2\n"), allowed=tried
        )
    for what, place in d.places().items():
        yield case(f"list is {what}", lambda project, place=place: place(project / "l.tsv"), named=("l.tsv",))
        yield case(
            f"out is {what}",
            lambda project, place=place: (listed(good)(project), place(project / "out")),
            allowed="a folder to be filled" if what == "a folder" else "",
            named=("out",),
        )
    yield case("out below a file", listed(good), ("download", "l.tsv", "l.tsv/out", *flags), named=("l.tsv",))
    for option in ("--size", "--connections", "--per-shard", "--min-success"):
        for value in ("0", "-1", "x", "nan", "inf", "1e30", str(2**64), ""):
            fine = option == "--min-success" and value == "0" or value == str(2**64) and option in ("--per-shard",)
            yield case(f"{option} {value}", listed(good), (*command, option, value), "a valid value" if fine else "")
    # an earlier run's folder
    begun = "downloads"
    for name in ("ledger.sqlite", "000000.tar", "manifest.json"):
        for what, place in d.places().items():
            yield case(
                f"{name} is {what}",
                lambda project, name=name, place=place: _begun(project, good, name, place),
                allowed=tried if name == "manifest.json" else "",
                world=begun,
                named=(name, "out"),
            )
    shapes = {
        "empty": d.replaced(b""),
        "noise": d.replaced(bytes(range(256)) * 40),
        "half": d.edited(lambda data: data[: len(data) // 2]),
        "a bit flipped in byte 9": d.edited(lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:]),
        "missing": d.remove,
        "zeros": d.edited(lambda data: bytes(len(data))),
        "ends in noise": d.edited(lambda data: data + b"noise" * 99),
        "a bit flipped in the middle": d.edited(
            lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
        ),
    }
    for name in ("ledger.sqlite", "000000.tar"):
        for what, change in shapes.items():
            if name == "000000.tar" or what == "missing":
                allowed = tried
            else:
                allowed = UNUSED if what in ("a bit flipped in the middle", "ends in noise") else ""
            yield case(
                f"{name} {what}",
                lambda project, name=name, change=change: _begun(project, good, name, change),
                allowed=allowed,
                named=(name, "out"),
            )
    statements = {
        "no list": "DELETE FROM list",
        "no urls": "DELETE FROM urls",
        "two lists": "INSERT INTO list SELECT * FROM list",
        "list dropped": "DROP TABLE list",
        "urls dropped": "DROP TABLE urls",
        "version 9": "PRAGMA user_version = 9",
        "version 0": "PRAGMA user_version = 0",
        "state of no kind": "UPDATE urls SET state = 'x'",
        "shard of text": "UPDATE urls SET shard = '../x'",
        "attempts of text": "UPDATE urls SET attempts = 'x', state = 'waiting', shard = NULL",
        "size of text": "UPDATE list SET size = 'x'",
        "due of text": "UPDATE urls SET state = 'waiting', due = 'x', shard = NULL",
        "url of a number": "UPDATE urls SET url = key, state = 'waiting'",
        "caption a blob": "UPDATE urls SET caption = x'ff', state = 'waiting', shard = NULL",
        "a column less": "ALTER TABLE urls DROP COLUMN error",
        "due far off": "UPDATE urls SET state = 'waiting', due = 9e15, shard = NULL",
        "keys moved": "UPDATE urls SET key = key + 100",
    }
    for what, statement in statements.items():
        yield case(
            f"ledger: {what}",
            lambda project, statement=statement: _begun(
                project, good, "ledger.sqlite", lambda path: execute(path, statement)
            ),
            named=("ledger", "out"),
            allowed=tried,
        )
    foreign = {
        "names": {"cat.jpg": picture("JPEG")},
        "no entries": {},
        "text": {"0.txt": b"x"},
        "far numbers": {"999.jpg": b"x"},
    }
    for what, files in foreign.items():
        yield case(
            f"foreign shard of {what}",
            lambda project, files=files: _begun(project, good, "000007.tar", lambda path: d.own_tar(path, files)),
            named=("000007", "out"),
            allowed=tried,
        )
    yield case(
        "a lock that is a folder",
        lambda project: (listed(good)(project), (project / "out/.lock").mkdir(parents=True)),
        named=("lock", "out"),
    )
    yield case(
        "another list", lambda project: (_begun(project, good, "x", d.replaced(b"")), listed("a\thttp://x/\n")(project))
    )
    yield case("another size", lambda project: _begun(project, good, "x", d.replaced(b"")), (*command, "--size", "64"))


def _begun(project: Path, content: str, name: str, change: Callable[[Path], None]) -> None:
    """The list and the folder of a finished download, of which one file is changed."""
    shutil.copytree(project / "finished", project / "out")
    shutil.copy(project / "finished.tsv", project / "l.tsv")
    change(project / "out" / name)


def execute(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()
