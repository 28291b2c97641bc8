"""Downloads from a server that misbehaves: what each failure is called, what is tried again, and what a kill costs."""

import io
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import misbehaving
from condmix import CondmixError
from condmix.cli import main
from condmix.download import addresses, ledger, shards
from misbehaving import colour, picture
from own_data import write_tar

QUICK = shards.Limits(attempts=3, first_wait=0.01, longest_asked=2.0, bytes=1 << 20)
IMPATIENT = replace(QUICK, read=0.5, total=1.0)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def address():
    with misbehaving.serving() as address:
        yield address


@pytest.fixture
def server(address, tmp_path):
    """Paths of this test's own: `url(path)` on the server, and `asked()`, {path: times asked}."""
    prefix = f"/{tmp_path.name}/"

    def asked():
        found = misbehaving.asked(address).items()
        return Counter({path.removeprefix(prefix): count for path, count in found if path.startswith(prefix)})

    return SimpleNamespace(url=lambda path: address + prefix + path, asked=asked)


@pytest.fixture
def get(server, tmp_path):
    """Downloads a list of paths, or of whole URLs, into tmp_path/out and returns the manifest."""

    def run(paths, **options):
        urls = [path if "://" in path else server.url(path) for path in paths]
        source = tmp_path / "list.tsv"
        source.write_text("".join(f"caption {number}\t{url}\n" for number, url in enumerate(urls)))
        # the server is on loopback
        options = {"limits": QUICK, "min_success": 0.0, "size": 64, "allow_private": True} | options
        shards.main(source, tmp_path / "out", shards.Options(**options))
        return json.loads((tmp_path / "out" / "manifest.json").read_text())

    return run


def samples(folder):
    """[(shard, key, picture, caption, facts), ...] of every shard."""
    found = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            files = [(entry.name, tar.extractfile(entry).read()) for entry in tar]
        for (jpg, pixels), (txt, caption), (facts_name, facts) in zip(*[iter(files)] * 3, strict=True):
            key = jpg.removesuffix(".jpg")
            assert (txt, facts_name) == (f"{key}.txt", f"{key}.json")  # neighbours, as webdataset groups them
            image = Image.open(io.BytesIO(pixels))
            found.append(SimpleNamespace(shard=path.name, key=int(key), image=image, caption=caption, facts=facts))
    return found


def test_pictures_come_into_shards_with_their_captions(get, server, tmp_path):
    kinds = ["ok", "png", "untyped", "slow", "moved"]
    manifest = get([f"{kinds[i % 5]}/{i}" for i in range(23)], per_shard=10)
    assert manifest["shards"] == {"000000.tar": 10, "000001.tar": 10, "000002.tar": 3}
    assert manifest["pictures"] == manifest["urls"] == 23 and manifest["errors"] == {}
    found = samples(tmp_path / "out")
    assert sorted(sample.key for sample in found) == list(range(23))
    for sample in found:
        assert sample.image.format == "JPEG" and sample.image.size == (85, 64)
        assert np.abs(np.asarray(sample.image, int) - colour(sample.key)).max() <= 4
        assert sample.caption.decode() == f"caption {sample.key}"
        facts = json.loads(sample.facts)
        assert facts["url"].endswith(f"/{sample.key}")
        assert (facts["width"], facts["height"], facts["original_width"], facts["original_height"]) == (85, 64, 80, 60)


@pytest.mark.parametrize(
    "behaviour, error, asked",
    [
        ("silent", "time-out", 3),
        ("drip", "time-out", 3),
        ("reset", "connection", 6),  # aiohttp asks once more by itself, as RFC 9112 allows
        ("truncated", "cut off", 3),
        ("503", "status 503", 3),
        ("520", "status 520", 3),
        ("nonsense", "status 503", 3),
        ("busy", "status 429", 3),
        ("closed", "status 429", 1),  # asks for more patience than a run has
        ("404", "status 404", 1),
        ("410", "status 410", 1),
        ("403", "status 403", 1),
        ("page", "content type", 1),
        ("liar", "no picture", 1),
        ("half", "no picture", 1),
        ("noai", "opted out", 1),
        ("loop", "redirects", 5),
        ("elsewhere", "bad URL", 1),
        ("huge", "too many bytes", 1),
        ("endless", "too many bytes", 1),
        ("bomb", "too many pixels", 1),
        ("large-bomb", "too many pixels", 1),
        ("pixel", "too small or too narrow", 1),
        ("narrow", "too small or too narrow", 1),
        ("garbage", "not HTTP", 1),
    ],
)
def test_failures_have_names_and_only_those_that_may_pass_are_tried_again(behaviour, error, asked, get, server):
    manifest = get([f"{behaviour}/0"], limits=IMPATIENT if error == "time-out" else QUICK)
    assert manifest["errors"] == {error: 1} and not manifest["shards"]
    assert server.asked()[f"{behaviour}/0"] == asked


def test_urls_that_lead_nowhere(get):
    bad = ["http://[half/x", "http://", "http://a..b/x.jpg", "http://a:99999/x.jpg"]
    errors = get([*bad, "http://127.0.0.1:1/x.jpg", "http://absent.invalid/x.jpg"])["errors"]
    assert errors.pop("bad URL") == len(bad) and errors.pop("connection") == 1
    assert errors in ({"unknown host": 1}, {"name server": 1})  # the latter where there is no network


@pytest.mark.parametrize("behaviour", ["503", "busy", "busy-until", "reset", "truncated", "silent"])
def test_trouble_that_passes(behaviour, get, server):
    limits = replace(QUICK, read=2.0)
    assert get([f"{behaviour}-once/0"], limits=limits)["pictures"] == 1
    assert server.asked()[f"{behaviour}-once/0"] == 2


def test_waits_double_with_jitter_and_retry_after_is_a_lower_bound(monkeypatch):
    dues = []
    book = SimpleNamespace(
        again=lambda key, error, due: dues.append(due), failed=lambda *failure: dues.append("failed")
    )
    monkeypatch.setattr(shards.time, "time", lambda: 0.0)
    limits = shards.Limits(attempts=4, first_wait=1.0, longest_asked=300.0)
    for attempts, wait in [(0, None), (1, None), (2, None), (3, None), (0, 300.0), (0, 301.0)]:
        shards._record(book, ledger.ListedUrl(0, "", "", attempts), shards.Failure("status 429", True, wait), limits)
    assert dues[3] == dues[5] == "failed" and dues[4] == 300.0
    for due, middle in zip(dues[:3], [1, 2, 4], strict=True):
        assert 0.5 * middle <= due <= 1.5 * middle


def test_a_wait_holds_no_connection(get, server):
    get([*(f"busy-once/{i}" for i in range(4)), *(f"ok/{i}" for i in range(4, 20))], connections=2)
    assert list(server.asked()) == [f"busy-once/{i}" for i in range(4)] + [f"ok/{i}" for i in range(4, 20)]
    assert all(server.asked()[f"busy-once/{i}"] == 2 for i in range(4))


def test_a_rerun_asks_nothing_and_retry_asks_what_may_have_passed(get, server, tmp_path):
    paths = ["ok/0", "404/1", "503/2", "liar/3", "closed/4"]
    first = get(paths)
    before = server.asked()
    assert get(paths) == first and server.asked() == before
    get(paths, retry=True)
    assert server.asked() - before == {"503/2": QUICK.attempts, "closed/4": 1}


def test_the_gate_names_what_went_wrong(get, tmp_path):
    paths = ["ok/0", "404/1", "404/2", "503/3"]
    with pytest.raises(CondmixError, match=r"only 1 of 4 .*\(status 404: 2, status 503: 1\), .* 25.0% .*asks 1 again"):
        get(paths, min_success=0.3)
    assert len(samples(tmp_path / "out")) == 1
    assert get(paths, min_success=0.25)["pictures"] == 1


def test_a_repeated_url_is_fetched_once(get, server):
    manifest = get(["ok/0", "ok/1", "ok/0"])
    assert (manifest["urls"], manifest["repeated_urls"], manifest["pictures"]) == (2, 1, 2)
    assert server.asked() == {"ok/0": 1, "ok/1": 1}


def test_a_folder_belongs_to_one_list_one_size_and_one_process(get, tmp_path):
    get(["ok/0"])
    with pytest.raises(CondmixError, match="begun with --size 64, not 32"):
        get(["ok/0"], size=32)
    with pytest.raises(CondmixError, match="begun with another list"):
        get(["ok/1"])
    with shards.FileLock(tmp_path / "out" / ".lock"), pytest.raises(CondmixError, match="another download"):
        get(["ok/0"])
    (tmp_path / "out" / "ledger.sqlite").unlink()
    with pytest.raises(CondmixError, match="has shards, but its ledger.sqlite is gone"):
        get(["ok/0"])


def test_a_shard_that_the_ledger_missed_is_read_back(get, server, tmp_path, monkeypatch):
    """Killed after the shard took its name and before the ledger's commit."""

    def killed(*arguments):
        raise KeyboardInterrupt

    paths = [f"ok/{i}" for i in range(10)]
    with monkeypatch.context() as patch:
        patch.setattr(ledger.Ledger, "done", killed)
        with pytest.raises(KeyboardInterrupt):
            get(paths, per_shard=5, connections=1)
    (tmp_path / "out" / ".000001.tar.part").write_bytes(b"half a shard")
    manifest = get(paths, per_shard=5)
    assert manifest["shards"] == {"000000.tar": 5, "000001.tar": 5}
    assert sorted(sample.key for sample in samples(tmp_path / "out")) == list(range(10))
    assert all(server.asked()[f"ok/{i}"] == 1 for i in range(5))
    assert not list((tmp_path / "out").glob(".*.part"))


def test_a_shard_that_is_gone_is_fetched_again(get, server, tmp_path):
    paths = [f"ok/{i}" for i in range(4)]
    get(paths, per_shard=2)
    (tmp_path / "out" / "000000.tar").unlink()
    assert get(paths, per_shard=2)["pictures"] == 4
    assert sorted(sample.key for sample in samples(tmp_path / "out")) == list(range(4))
    assert sum(server.asked().values()) == 6


def test_killed_twice_nothing_is_lost_or_in_two_shards(server, tmp_path):
    kinds = ["ok", "ok", "slow", "404", "reset-once", "liar"]
    paths = [f"{kinds[i % 6]}/{i}" for i in range(240)]
    source, out = tmp_path / "list.tsv", tmp_path / "out"
    source.write_text("".join(f"caption {i}\t{server.url(path)}\n" for i, path in enumerate(paths)))
    command = [sys.executable, "-m", "condmix", "download", str(source), str(out)]
    command += ["--connections", "8", "--size", "32", "--per-shard", "20", "--allow-private"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    shards = 0
    for _ in range(2):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        while len(list(out.glob("*.tar"))) < shards + 2:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        asked = server.asked()
        finished = {paths[sample.key]: asked[paths[sample.key]] for sample in samples(out)}
        shards = len(list(out.glob("*.tar")))
        assert len(finished) < 160, "it ended before it could be killed"
    subprocess.run(command, env=environment, check=True, capture_output=True)
    found = [sample.key for sample in samples(out)]
    assert sorted(found) == [i for i in range(240) if kinds[i % 6] not in ("404", "liar")]
    asked = server.asked()
    assert {path: asked[path] for path in finished} == finished  # what shards had was not asked again
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["errors"] == {"no picture": 40, "status 404": 40} and manifest["pictures"] == 160


# Addresses and credentials


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "0.0.0.0", "169.254.169.254"]
)
def test_hosts_that_are_not_public_are_asked_only_with_the_flag(host, get, server, address, tmp_path):
    url = f"{server.url('ok/0')}".replace("127.0.0.1", host)
    assert get([url], allow_private=False)["errors"] == {"private address": 1} and not server.asked()
    if host in ("127.0.0.1", "localhost"):
        assert get([url], retry=True)["pictures"] == 1


def test_a_refused_address_says_which_flag_allows_it(get):
    with pytest.raises(CondmixError, match=r"private address: 1\).*--allow-private --retry asks private addresses too"):
        get(["ok/0"], allow_private=False, min_success=0.5)


@pytest.mark.parametrize("address", ["10.0.0.1", "::1", "fe80::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::"])
def test_names_that_resolve_to_other_than_public_addresses(address, get, monkeypatch):
    resolve_as(monkeypatch, lambda: [address])
    assert get(["http://pictures.example/0.jpg"], allow_private=False)["errors"] == {"private address": 1}


def test_a_name_is_judged_by_the_address_that_is_connected_to(get, server, monkeypatch):
    """A name server that answers with a public address first, and later with another, gains nothing."""
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    resolve_as(monkeypatch, lambda: next(answers))
    monkeypatch.setattr(addresses, "is_public", lambda one: one == "127.0.0.1")  # as if the server were on the internet
    monkeypatch.setattr(aiohttp, "TCPConnector", partial(aiohttp.TCPConnector, ttl_dns_cache=0))
    url = server.url("truncated/0").replace("127.0.0.1", "pictures.example")
    assert get([url], allow_private=False)["errors"] == {"private address": 1}
    assert server.asked() == {"truncated/0": 1}


def test_redirects_are_judged_as_well(get, server, monkeypatch):
    monkeypatch.setattr(addresses, "is_public", lambda one: one == "127.0.0.1")
    manifest = get(["ok/0", "moved/1", "inside/2"], allow_private=False)
    assert manifest["pictures"] == 2 and manifest["errors"] == {"private address": 1}
    assert server.asked()["inside/2"] == 1


def resolve_as(monkeypatch, answer):
    """Names resolve to the addresses that `answer` gives at each look-up."""

    async def resolve(self, host, port=0, family=0):
        return [{"hostname": host, "host": one, "port": port, "family": 0, "proto": 0, "flags": 0} for one in answer()]

    monkeypatch.setattr(aiohttp.connector.DefaultResolver, "resolve", resolve)


def test_proxies_of_the_environment_are_not_used(get, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert get(["ok/0"])["pictures"] == 1


def test_credentials_are_sent_and_not_kept(get, server, tmp_path):
    def with_password(path):
        return server.url(path).replace("//", "//user:hunter2@")

    paths = [with_password("guarded/0"), with_password("404/1"), server.url("ok/2") + "?token=hunter2"]
    manifest = get([*paths, server.url("ok/3") + "?token=hunter3", with_password("503-once/4")])
    assert manifest["pictures"] == 4 and manifest["errors"] == {"status 404": 1}  # the two tokens are two URLs
    assert server.asked()["ok/2?token=hunter2"] == 1
    for path in (tmp_path / "out").iterdir():
        assert b"hunter" not in path.read_bytes() and b"user:" not in path.read_bytes(), path
    assert {json.loads(sample.facts)["url"] for sample in samples(tmp_path / "out")} >= {
        server.url("ok/2") + "?token=***"
    }


def test_a_message_hides_credentials_and_spells_escapes_out(tmp_path):
    source = tmp_path / "list.tsv"
    source.write_text("a\x1b[31m caption\tftp://user:hunter2@host/x.jpg?sig=hunter2\n")
    with pytest.raises(CondmixError) as error:
        shards.main(source, tmp_path / "out", shards.Options())
    assert "hunter2" not in str(error.value) and "\x1b" not in str(error.value) and "host/x.jpg" in str(error.value)


# Clocks


@pytest.mark.parametrize("step", [3600, 1e9])
def test_a_clock_that_is_set_back_makes_nothing_wait(step, get, monkeypatch):
    clock = itertools.count(time.time(), -step)  # each look at it is that much before the last
    monkeypatch.setattr(time, "time", lambda: max(0.0, next(clock)))
    manifest = get(["503/0", "busy/1", "503-once/2", "busy-until-once/3"])
    assert manifest["pictures"] == 2 and manifest["errors"] == {"status 429": 1, "status 503": 1}


def test_a_wait_ends_with_its_run(get, server, tmp_path):
    """Killed while a row waited; the ledger may have come from a machine that has run for longer."""
    get(["ok/0", "ok/1"], limits=replace(QUICK, attempts=1))
    with sqlite3.connect(tmp_path / "out" / "ledger.sqlite") as db:
        db.execute("UPDATE urls SET state = 'waiting', due = 1e18, shard = NULL WHERE key = 1")
    (tmp_path / "out" / "000000.tar").unlink()
    assert get(["ok/0", "ok/1"])["pictures"] == 2


# Damage


def foreign(name):
    """A shard's members as another download has them."""
    content = json.dumps({"key": name, "url": "http://elsewhere/0.jpg"})
    return {f"{name}.jpg": content, f"{name}.json": content}


@pytest.mark.parametrize(
    "content",
    [
        foreign("cat"), foreign("000000000"), foreign("000000099"),  # a name, a key and a key of no line
        {"000000000.json": "5"}, {"000000000.json": "[" * 100_000}, b"not a tar" * 100, b"",
    ],
)  # fmt: skip
def test_a_shard_that_is_none_of_this_download_is_named_and_left_alone(content, get, tmp_path):
    get(["ok/0"])
    shard = tmp_path / "out" / "000007.tar"
    shard.write_bytes(content) if isinstance(content, bytes) else write_tar(shard, content)
    before = shard.read_bytes()
    with pytest.raises(CondmixError, match=r"000007.tar is not a shard of this download \(.*\): move it out"):
        get(["ok/0"])
    assert shard.read_bytes() == before
    shard.unlink()
    assert get(["ok/0"])["pictures"] == 1


def link_to(target):
    return lambda path: path.symlink_to(target)


@pytest.mark.parametrize(
    ("name", "put"),
    [
        *((name, Path.mkdir) for name in ("ledger.sqlite", "manifest.json", ".lock", "000000.tar", "000007.tar")),
        *(("000000.tar", link_to(target)) for target in ("nothing", "000000.tar")),  # links that lead nowhere
    ],
)
def test_what_is_no_file_in_a_file_s_place_is_said_before_anything_is_asked(name, put, get, server, tmp_path):
    (tmp_path / "out").mkdir()
    put(tmp_path / "out" / name)
    with pytest.raises(CondmixError, match=f"{name} is not a file: move it away"):
        get(["ok/0"])
    assert not server.asked()


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_in_the_folder_s_place(below, get, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "list.tsv").write_text("a\thttp://127.0.0.1:1/\n")
    with pytest.raises(CondmixError, match="can't be a folder, since there is a file in its place"):
        shards.main(tmp_path / "list.tsv", tmp_path / "file" / below, shards.Options())
    assert (tmp_path / "file").is_file()


@pytest.mark.parametrize(
    "damage, said",
    [
        ("DELETE FROM list", "does not say which list"),
        ("UPDATE list SET lines = 'many'", "does not say which list"),
        ("INSERT INTO list VALUES ('x', 1, 1)", "does not say which list"),
        ("DROP TABLE list", "no such table"),
        ("DROP TABLE urls", "no such table"),
        ("UPDATE urls SET state = 'maybe'", "2 of its rows make no sense"),
        ("UPDATE urls SET attempts = 'often' WHERE key = 1", "1 of its rows"),
        ("UPDATE urls SET url = x'00' WHERE key = 1", "1 of its rows"),
        ("UPDATE urls SET caption = 'a rinh' WHERE key = 1", "its row 1 is not line 2 of"),
        ("UPDATE urls SET key = 7 WHERE key = 1", "no line for its row 7"),
        ("PRAGMA user_version = 9", "of another version of condmix"),
    ],
)
def test_a_damaged_ledger_is_one_sentence_and_shards_stay(damage, said, get, tmp_path):
    get(["ok/0", "ok/1"])
    with sqlite3.connect(tmp_path / "out" / "ledger.sqlite") as db:
        db.execute(damage)
    with pytest.raises(CondmixError, match=said) as error:
        get(["ok/0", "ok/1"])
    assert "\n" not in str(error.value) and "ledger.sqlite" in str(error.value)
    assert len(samples(tmp_path / "out")) == 2


@pytest.mark.parametrize("content", [b"not SQLite" * 99, b"", b"half"])
def test_a_file_that_is_no_ledger(content, get, tmp_path):
    get(["ok/0"])
    ledger_file = tmp_path / "out" / "ledger.sqlite"
    ledger_file.write_bytes(ledger_file.read_bytes()[:5000] if content == b"half" else content)
    with pytest.raises(CondmixError, match=r"ledger.sqlite"):
        get(["ok/0"])
    assert len(samples(tmp_path / "out")) == 1


def test_a_damaged_manifest_is_made_again(get, tmp_path):
    first = get(["ok/0"])
    (tmp_path / "out" / "manifest.json").write_bytes(b'{"urls": NaN')
    assert get(["ok/0"]) == first


def test_a_ledger_of_the_first_version_goes_on(get, server, tmp_path):
    get(["ok/0", "503/1"])
    with sqlite3.connect(tmp_path / "out" / "ledger.sqlite") as db:
        old = "key INTEGER PRIMARY KEY, caption TEXT NOT NULL, url TEXT NOT NULL UNIQUE, state TEXT NOT NULL, "
        old += "due REAL NOT NULL, attempts INTEGER NOT NULL, error TEXT, shard TEXT"
        db.execute(f"CREATE TABLE former ({old})")
        db.execute("INSERT INTO former SELECT key, caption, url, state, due, attempts, error, shard FROM urls")
        db.execute("DROP TABLE urls")
        db.execute("ALTER TABLE former RENAME TO urls")
        db.execute("PRAGMA user_version = 1")
    manifest = get(["ok/0", "503/1"], retry=True)
    assert manifest["pictures"] == 1 and server.asked() == {"ok/0": 1, "503/1": 2 * QUICK.attempts}


FORM = "line 2: expected caption<TAB>http"


@pytest.mark.parametrize(
    "line, said",
    [
        (b"no tab", FORM),
        (b"http://a/x.jpg\ta caption", FORM),
        (b"a\tftp://a/x.jpg", FORM),
        (b"a\t", FORM),
        (b"a\thttp://a/x.jpg\rb\thttp://a/y.jpg", FORM),
        (b"\xff", "line 2: not UTF-8"),
        (b"a\thttp://h/" + b"x" * (1 << 20), "line 2: .* found more than 1,048,576 bytes"),
    ],
)
def test_a_list_that_is_none_is_refused_by_line(line, said, tmp_path):
    source, whole = tmp_path / "list.tsv", b"a ring\thttp://127.0.0.1:1/0.jpg\n"
    source.write_bytes(whole + line + b"\n")
    with pytest.raises(CondmixError, match=f"list.tsv, {said}"):
        shards.main(source, tmp_path / "out", shards.Options(limits=QUICK))
    source.write_bytes(whole)  # mended, it takes the same folder
    with pytest.raises(CondmixError, match=r"only 0 of 1 .*connection: 1"):
        shards.main(source, tmp_path / "out", shards.Options(limits=QUICK, allow_private=True))


def test_an_empty_list_is_none(tmp_path):
    (tmp_path / "list.tsv").touch()
    with pytest.raises(CondmixError, match="list.tsv is empty"):
        shards.main(tmp_path / "list.tsv", tmp_path / "out", shards.Options())


def test_a_list_that_changes_meanwhile_is_noticed_where_it_is_read_again(get, server, tmp_path, monkeypatch):
    url = server.url("503-once/0").replace("//", "//user:hunter2@")
    real = ledger.Ledger._failure

    def change_the_list(*arguments):
        (tmp_path / "list.tsv").write_text("caption 0\thttp://another/0.jpg\n")
        real(*arguments)

    monkeypatch.setattr(ledger.Ledger, "_failure", change_the_list)
    with pytest.raises(CondmixError, match="list.tsv was changed while it was being downloaded"):
        get([url])


# Pictures


def exif_turned(width, height):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.new("RGB", (width, height), "red").save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_pictures_stand_upright_opaque_and_at_size():
    limits = shards.Limits()
    turned = shards.to_jpeg(exif_turned(1000, 600), 64, limits)
    assert (turned.size, turned.original) == ((64, 107), (1000, 600))
    file = io.BytesIO()
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(file, "PNG")
    white = np.asarray(Image.open(io.BytesIO(shards.to_jpeg(file.getvalue(), 64, limits).jpeg)))
    assert white.min() >= 254
    with pytest.raises(shards.Failure, match="too many pixels"):
        shards.to_jpeg(picture(0), 64, replace(limits, pixels=80 * 60 - 1))


@pytest.mark.parametrize("value", ["nan", "inf", "-0.1", "1.5"])
def test_a_share_that_is_none_is_refused_on_the_command_line(value, tmp_path):
    (tmp_path / "list.tsv").write_text("a\thttp://127.0.0.1:1/\n")
    arguments = ["download", str(tmp_path / "list.tsv"), str(tmp_path / "out"), "--min-success", value]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "--min-success" in result.output and value in result.output
    assert not (tmp_path / "out").exists()
