"""Downloads from a server that misbehaves: what each failure is called, what is tried again, and what a kill costs."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import misbehaving
from condmix import CondmixError, download, ledger
from misbehaving import colour, picture

QUICK = download.Limits(attempts=3, first_wait=0.01, longest_asked=2.0, bytes=1 << 20)
IMPATIENT = replace(QUICK, read=0.5, total=1.0)
ROOT = Path(__file__).parents[1]


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

    def run(paths, limits=QUICK, min_success=0.0, size=64, **options):
        urls = [path if "://" in path else server.url(path) for path in paths]
        source = tmp_path / "list.tsv"
        source.write_text("".join(f"caption {number}\t{url}\n" for number, url in enumerate(urls)))
        download.main(source, tmp_path / "out", size=size, min_success=min_success, limits=limits, **options)
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
    monkeypatch.setattr(download.time, "time", lambda: 0.0)
    limits = download.Limits(attempts=4, first_wait=1.0, longest_asked=300.0)
    for attempts, wait in [(0, None), (1, None), (2, None), (3, None), (0, 300.0), (0, 301.0)]:
        download._record(book, ledger.Row(0, "", "", attempts), download.Failure("status 429", True, wait), limits)
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


@pytest.mark.parametrize("line", ["no tab", "http://a/x.jpg\ta caption", "a\tftp://a/x.jpg", "a\t"])
def test_a_list_that_is_none_is_refused_by_line(line, tmp_path):
    source = tmp_path / "list.tsv"
    source.write_text(f"a ring\thttp://127.0.0.1:1/0.jpg\n{line}\n")
    with pytest.raises(CondmixError, match=r"list.tsv, line 2: expected caption<TAB>http"):
        download.main(source, tmp_path / "out", limits=QUICK)
    source.write_text("a ring\thttp://127.0.0.1:1/0.jpg\n")  # mended, it takes the same folder
    with pytest.raises(CondmixError, match=r"only 0 of 1 .*connection: 1"):
        download.main(source, tmp_path / "out", limits=QUICK)


def test_a_folder_belongs_to_one_list_one_size_and_one_process(get, tmp_path):
    get(["ok/0"])
    with pytest.raises(CondmixError, match="begun with --size 64, not 32"):
        get(["ok/0"], size=32)
    with pytest.raises(CondmixError, match="begun with another list"):
        get(["ok/1"])
    with download.FileLock(tmp_path / "out" / ".lock"), pytest.raises(CondmixError, match="another download"):
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
    command += ["--connections", "8", "--size", "32", "--per-shard", "20"]
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


def exif_turned(width, height):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.new("RGB", (width, height), "red").save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_pictures_stand_upright_opaque_and_at_size():
    limits = download.Limits()
    turned = download.to_jpeg(exif_turned(1000, 600), 64, limits)
    assert (turned.size, turned.original) == ((64, 107), (1000, 600))
    file = io.BytesIO()
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(file, "PNG")
    white = np.asarray(Image.open(io.BytesIO(download.to_jpeg(file.getvalue(), 64, limits).jpeg)))
    assert white.min() >= 254
    with pytest.raises(download.Failure, match="too many pixels"):
        download.to_jpeg(picture(0), 64, replace(limits, pixels=80 * 60 - 1))
