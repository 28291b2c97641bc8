"""Fetch against a local server that misbehaves: resume, retry, verify, and one sentence for what can't be mended."""

import errno
import hashlib
import io
import os
import threading
import time
import traceback
from contextlib import suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from condmix import CondmixError
from condmix.datasets.demo import Demo
from condmix.download import transfer
from condmix.settings.load import Paths
from condmix.settings.schema import File
from condmix.stages import fetch
from profiles import section

CONTENT = np.random.default_rng(0).bytes(3 << 20)
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
QUICK = transfer.Retries(attempts=3, first_wait=0.001, longest_wait=0.01, longest_asked=1.0, timeout=2.0)


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's script says, entry by entry; afterwards, and by default, as it should."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        act = self.server.script.pop(0) if self.server.script else "ok"
        first = act[0] if isinstance(act, tuple) else act
        if first == "endless":
            self.send_response(act[1])
            self.send_header("Location", act[2])
            self.end_headers()
            with suppress(ConnectionError):
                while not self.server.done.wait(0.01):
                    self.wfile.write(bytes(1 << 16))
            self.close_connection = True
        elif isinstance(act, tuple):  # a status and its headers
            self.send_response(act[0])
            for name, value in (act[1] | {"Content-Length": "0"}).items():
                self.send_header(name, value)
            self.end_headers()
        elif act == "reset":
            self.close_connection = True
        elif act == "silent":
            self.server.done.wait(20)
            self.close_connection = True
        else:
            self.send_content(act, int(asked[len("bytes=") : -1]) if asked else 0)

    def send_content(self, act, start):
        content = self.server.content
        if act == "no ranges":
            start = 0
        self.send_response(206 if start else 200)
        if start:
            begins = start - 1 if act == "other place" else start
            self.send_header("Content-Range", f"bytes {begins}-{len(content) - 1}/{len(content)}")
        if act == "no length":
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if isinstance(act, int):  # so many bytes, and then the line is cut
            body = body[:act]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.script, server.asked, server.content, server.done = [], [], CONTENT, threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}/file.zip"
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.done.set()
        server.shutdown()
        thread.join(5)


@pytest.fixture
def get(server, tmp_path):
    """Fetches the file with changes to url, size, checksum; the folders are archives/ and partial/."""

    def run(retries=QUICK, **changes):
        file = {"name": "file.zip", "url": server.url, "size": len(CONTENT), "checksum": SHA256} | changes
        return transfer.fetch(SimpleNamespace(**file), tmp_path / "archives", tmp_path / "partial", retries)

    return run


@pytest.fixture
def part(tmp_path):
    (tmp_path / "partial").mkdir()
    return tmp_path / "partial" / "file.zip.part"


@pytest.mark.parametrize("checksum", [SHA256, MD5])
def test_a_file_arrives_whole(checksum, get, server, tmp_path):
    path = get(checksum=checksum)
    assert path == tmp_path / "archives" / "file.zip" and path.read_bytes() == CONTENT
    assert list((tmp_path / "partial").iterdir()) == []


def test_a_verified_archive_is_kept(get, server):
    before = get().stat().st_mtime_ns
    assert get().stat().st_mtime_ns == before
    assert len(server.asked) == 1


@pytest.mark.parametrize("damage", [b"short", CONTENT[:-1] + b"x"])
def test_an_archive_that_is_wrong_is_replaced(damage, get, server, tmp_path, caplog):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "file.zip").write_bytes(damage)
    assert get().read_bytes() == CONTENT
    assert "fetched again" in caplog.text


@pytest.mark.parametrize(
    ("left", "script", "asked"),
    [
        (CONTENT[:1_000_000], [], ["bytes=1000000-"]),
        (CONTENT, [], []),  # only verified
        (CONTENT + b"more", [], [None]),  # too long
        (CONTENT[:1000], ["no ranges"], ["bytes=1000-"]),  # from a server that starts anew
    ],
    ids=["a part", "all", "more", "no ranges"],
)
def test_it_resumes_where_it_stopped(left, script, asked, get, server, part):
    part.write_bytes(left)
    server.script = script
    assert get().read_bytes() == CONTENT
    assert server.asked == asked


def test_cut_connections_are_resumed_while_there_is_progress(get, server):
    server.script = [400_000] * 5  # more often than the attempts without progress
    assert get().read_bytes() == CONTENT
    assert server.asked[0] is None and len(server.asked) == 6
    starts = [int(asked[6:-1]) for asked in server.asked[1:]]
    assert starts == sorted(set(starts))


@pytest.mark.parametrize(
    "trouble", [(429, {}), (500, {}), (503, {"Retry-After": "0"}), "reset", 0, "other place", (408, {})]
)
def test_passing_trouble_is_tried_again(trouble, get, server, part):
    part.write_bytes(CONTENT[:1000])
    server.script = [trouble, trouble]
    assert get().read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_a_silent_server_times_out(get, server):
    server.script = ["silent"]
    assert get(retries=transfer.Retries(attempts=2, first_wait=0.001, timeout=0.3)).read_bytes() == CONTENT


def test_retries_end_and_what_has_come_is_kept(get, server, part):
    server.script = [500_000, *["reset"] * 10]
    with pytest.raises(CondmixError, match="3 times in a row; what has come is kept"):
        get()
    assert part.read_bytes() == CONTENT[: part.stat().st_size] and part.stat().st_size > 0
    server.script = []
    assert get().read_bytes() == CONTENT
    with pytest.raises(CondmixError, match="3 times in a row"):
        get(name="other.zip", url="http://127.0.0.1:1/file.zip")  # where nobody answers


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_will_not_pass_is_not_tried_again(status, get, server, tmp_path):
    server.script = [(status, {})] * 3
    with pytest.raises(CondmixError, match=f"answers {status} .*: check the URL"):
        get()
    assert len(server.asked) == 1
    assert not (tmp_path / "archives" / "file.zip").exists()


def test_retry_after_is_honoured(get, server, monkeypatch):
    waits = []
    monkeypatch.setattr(transfer.time, "sleep", waits.append)
    server.script = [(503, {"Retry-After": "1"}), (429, {"Retry-After": formatdate(time.time() - 60, usegmt=True)})]
    assert get().read_bytes() == CONTENT
    assert waits[0] == 1.0 and 0 < waits[1] <= 0.015
    server.script = [(503, {"Retry-After": "3600"})]
    with pytest.raises(CondmixError, match="asks to wait 3600 s"):
        get(name="other.zip")


def test_waits_double_with_jitter_up_to_a_limit(get, server, monkeypatch):
    waits = []
    monkeypatch.setattr(transfer.time, "sleep", waits.append)
    server.script = ["reset"] * 20
    with pytest.raises(CondmixError):
        get(retries=transfer.Retries(attempts=8, first_wait=1.0, longest_wait=20.0))
    assert len(waits) == 7
    for wait, middle in zip(waits, [1, 2, 4, 8, 16, 20, 20], strict=True):
        assert 0.5 * middle <= wait <= 1.5 * middle


AT = "Wed, 01 Jan 2020 00:00:{:02} GMT".format


@pytest.mark.parametrize(
    ("header", "date", "wait"),
    [
        (None, None, None), ("7", AT(10), 7.0), ("soon", None, None), ("-1", None, None), ("²", None, None),
        ("nan", None, None), ("", None, None), ("Mon, 01 Jan 0001", None, None), ("Mon, 01 Jan 0001 +2400", None, None),
        (AT(30), AT(10), 20.0), (AT(10), AT(30), 0.0),  # the server's own clock
    ],
)  # fmt: skip
def test_retry_after_headers(header, date, wait):
    assert transfer.asked_wait(header, date) == wait


def test_a_wrong_checksum_names_both_and_removes_the_download(get, server, part, tmp_path):
    wrong = "md5:" + "0" * 32
    with pytest.raises(CondmixError, match=rf"has {MD5.replace(':', ' ')}, but the profile expects {'0' * 32}"):
        get(checksum=wrong)
    assert not part.exists() and not (tmp_path / "archives" / "file.zip").exists()


@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_size_is_said_before_the_download(change, get, server, part):
    with pytest.raises(
        CondmixError, match=f"has {len(CONTENT)} bytes, but the profile expects {len(CONTENT) + change}"
    ):
        get(size=len(CONTENT) + change)
    assert not part.exists()


def test_without_a_length_the_size_is_checked_on_the_way(get, server, part):
    server.script = ["no length"]
    assert get().read_bytes() == CONTENT
    server.script = ["no length"] * 9
    with pytest.raises(CondmixError, match=f"more than the {len(CONTENT) - 9} bytes"):
        get(size=len(CONTENT) - 9)
    assert not part.exists()
    with pytest.raises(CondmixError, match=f"ended after {len(CONTENT)} of {len(CONTENT) + 9} bytes"):
        get(size=len(CONTENT) + 9)


def test_a_range_that_is_not_there(get, server, part):
    part.write_bytes(CONTENT[:1000])
    server.script = [(416, {"Content-Range": "bytes */500"})]
    with pytest.raises(CondmixError, match="shorter than the"):
        get()


@pytest.mark.parametrize("start", [0, 1000])
def test_file_urls(start, get, part, tmp_path, server):
    source = tmp_path / "with a space.zip"
    source.write_bytes(CONTENT)
    part.write_bytes(CONTENT[:start])
    assert get(url=source.as_uri()).read_bytes() == CONTENT
    assert server.asked == []


def test_file_urls_that_lead_nowhere(get, tmp_path):
    with pytest.raises(CondmixError, match="can't be read .No such file"):
        get(url=(tmp_path / "absent.zip").as_uri())
    (tmp_path / "short.zip").write_bytes(CONTENT[:7])
    with pytest.raises(CondmixError, match="has 7 bytes, but the profile expects"):
        get(url=(tmp_path / "short.zip").as_uri())
    os.mkfifo(tmp_path / "fifo")  # opening it would wait
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(CondmixError, match="is not a file: check the URL"):
            get(url=path.as_uri())


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("name", ["partial/file.zip.part", "archives/file.zip"])
def test_what_stands_in_the_place_of_a_download_is_refused_before_it(name, make, get, server, tmp_path):
    (tmp_path / name).parent.mkdir()
    make(tmp_path / name)
    with pytest.raises(CondmixError, match=f"{name} is not a regular file: move it away"):
        get()
    assert server.asked == []


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/file.zip", "file.zip", "http://", "http://[half/x", "http://a..b/x", "file:///a%00b"]
)
def test_urls_that_are_none(url, get):
    with pytest.raises(CondmixError, match="file.zip|http:|a%00b"):
        get(url=url)


@pytest.mark.parametrize(
    "script",
    [
        [],  # and a wrong checksum
        [(404, {})],
        [(503, {})] * 3,
        [(503, {"Retry-After": "999"})],
        ["reset"] * 3,
        [(302, {"Location": "http://user:secret@127.0.0.1:1/b?X-Amz-Signature=secret"})] * 3,
        [(302, {"Location": "http://user:secret@a..b/c?sig=secret"})],
        [(302, {"Location": "ftp://user:secret@host/c?sig=secret"})],
        [(302, {"Location": "file:///etc/passwd?token=secret"})],
        [(302, {"Location": "/again?token=secret"})] * 40,
    ],
)
def test_credentials_are_in_no_message(script, get, server):
    server.script = list(script)
    url = server.url.replace("//", "//user:secret@") + "?size=1&token=secret"
    with pytest.raises(CondmixError) as error:
        get(url=url, checksum="md5:" + "0" * 32)
    assert "secret" not in "".join(traceback.format_exception(error.value)) and server.url in str(error.value)
    assert server.asked


@pytest.mark.parametrize("status", [302, 404, 500])
def test_the_body_of_an_answer_without_the_file_is_not_read(status, get, server):
    """It could have any number of bytes; here it never ends."""
    server.script = [("endless", status, server.url)]
    if status == 404:
        with pytest.raises(CondmixError, match="answers 404"):
            get()
    else:
        assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["a\0b", "../file.zip", "a/b.zip", "/file.zip", "", "..", "."])
def test_names_stay_in_the_folder(name, get):
    with pytest.raises(CondmixError, match="must be a plain file name"):
        get(name=name)


def test_too_little_space_is_said_before_the_download(get, server, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(
        CondmixError, match=f"the disk is full: file.zip needs {len(CONTENT)} more bytes .*1000 are free"
    ):
        get()
    assert server.asked == []


def test_a_disk_that_fills_up_on_the_way(part, monkeypatch):
    class Full(io.BytesIO):
        def write(self, chunk):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer, "open", lambda *arguments: Full(), raising=False)
    with pytest.raises(CondmixError, match="the disk is full"):
        transfer.append(part, 0, 10, hashlib.sha256(), [b"abc"])


# The stage


def params(root, profile, **data):
    return SimpleNamespace(profile=profile, paths=Paths(root, profile), data=section("data", **{"world": {}} | data))


def test_the_stage_fetches_every_file(tmp_path):
    files = []
    for name in ("one.zip", "two.tar.gz"):
        (tmp_path / name).write_bytes(name.encode())
        digest = hashlib.sha256(name.encode()).hexdigest()
        url = (tmp_path / name).as_uri()
        files.append(File(name=name, url=url, size=len(name), checksum=f"sha256:{digest}"))
    given = params(tmp_path, "coco", dataset="coco", files=tuple(files))
    fetch.main(given)
    assert {path.name: path.read_text() for path in given.paths.archives.iterdir()} == {
        "one.zip": "one.zip",
        "two.tar.gz": "two.tar.gz",
    }


def test_the_stage_draws_the_demo_world(tmp_path):
    given = params(tmp_path, "demo", dataset="demo", world={"train": 5, "test": 2, "seed": 1})
    given.paths.partial.mkdir(parents=True)
    (given.paths.partial / "left.over").write_text("from a run that was killed")
    for _ in range(2):
        fetch.main(given)
    assert len(list(Demo(given.paths.archives, {}).images("train"))) == 5
    assert not (given.paths.archives / "left.over").exists() and not given.paths.partial.exists()


def test_a_profile_without_files(tmp_path):
    with pytest.raises(CondmixError, match="conf/mine.yaml lists no data.files: nothing to fetch for coco"):
        fetch.main(params(tmp_path, "mine", dataset="coco"))


def test_a_download_says_its_size_before_it_begins_and_nothing_where_all_is_there(tmp_path, capsys):
    archives, partial = tmp_path / "archives", tmp_path / "partial"
    files = [
        File(name=name, url="file:///x", size=size, checksum=SHA256)
        for name, size in (("a.zip", 19_336_861_798), ("b.zip", 1_000_000))
    ]
    partial.mkdir()
    (partial / "b.zip.part").write_bytes(bytes(500_000))
    fetch.say_what_comes(files, archives, partial)
    said = capsys.readouterr().out
    assert said.startswith(f"downloads a.zip, b.zip: 19.3 GB in all, to {archives}, where ")
    archives.mkdir()
    for file in files:
        (archives / file.name).touch()
    fetch.say_what_comes(files, archives, partial)
    assert capsys.readouterr().out == ""
