"""A list of captions and URLs, such as CC3M's -> webdataset shards of the pictures that can still be had.

The list has a line `caption<TAB>URL` per picture; shards hold key.jpg, key.txt (the caption) and key.json per picture,
in the order in which they arrive. The ledger (ledger.py) knows what became of every URL. A failure that may pass waits
there, and holds no connection meanwhile. At most `connections` pictures are on their way and one shard in memory,
however long the list is.

A list comes from anywhere, so only public addresses are connected to (addresses.py), and directly: through a proxy of
the environment it would be the proxy that looks names up. Credentials in URLs are used and not kept.

img2dataset does the same on many machines (docs/download.md).
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import socket
import sqlite3
import tarfile
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from filelock import FileLock, Timeout
from PIL import Image
from tqdm import tqdm

from condmix import CondmixError, __version__
from condmix.download.addresses import PrivateAddress, public_socket
from condmix.download.ledger import LEDGER, SHARDS, Ledger, ListedUrl
from condmix.download.transfer import asked_wait
from condmix.files.atomic import replacing, write_json
from condmix.files.pictures import open_picture, to_rgb
from condmix.runtime.cores import cores
from condmix.runtime.messages import without_credentials

CHUNK = 1 << 16  # bytes
TICK = 0.5  # seconds; after so long, what is due is looked for and the ledger committed
UNTYPED = {"application/octet-stream", "binary/octet-stream"}  # what storage services say of pictures
PRIVATE = "private address"
MANIFEST, LOCK = "manifest.json", ".lock"
HEADERS = {"User-Agent": f"condmix/{__version__}", "Accept": "image/*", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Limits:
    """What one URL may cost. Times are in seconds."""

    attempts: int = 4
    first_wait: float = 2.0  # doubled at each attempt, with +-50% jitter so that requests don't come back together
    longest_asked: float = 300.0  # a server that asks for a longer wait (Retry-After) is not asked again in this run
    connect: float = 10.0  # with the look-up of the host's name
    read: float = 10.0  # between two packets
    total: float = 60.0  # redirects and the last byte included
    redirects: int = 5
    bytes: int = 20 << 20
    pixels: int = 50_000_000
    shortest: int = 32  # pixels; smaller ones are place holders
    ratio: float = 8.0  # of the longer side to the shorter


@dataclass(frozen=True)
class Options:
    """How a list is downloaded; `min_success` is a share of the URLs, 0..1.

    Pictures get `size` pixels on the shorter side. `retry` also asks again what failed and may have passed.
    `allow_private` connects to addresses of this machine and its network too.
    """

    size: int = 256
    connections: int = 64
    min_success: float = 0.3
    retry: bool = False
    allow_private: bool = False
    per_shard: int = 1000
    limits: Limits = Limits()


class Failure(Exception):
    """Why a URL gave no picture: `error` is its class, `passing` whether it may pass, `wait` what the server asked."""

    def __init__(self, error: str, passing: bool = False, wait: float | None = None):
        super().__init__(error)
        self.error, self.passing, self.wait = error, passing, wait


class Picture(NamedTuple):
    jpeg: bytes
    size: tuple[int, int]  # width and height in pixels
    original: tuple[int, int]  # those of the file that came


def main(source: Path, folder: Path, options: Options) -> str:
    """Fill `folder` with shards, the ledger and manifest.json; returns a sentence of counts.

    Goes on where a killed run was. CondmixError where less than `min_success` of the URLs gave a picture.
    """
    if not source.is_file():
        raise CondmixError(f"there is no list {source}: expected a file with lines of caption<TAB>URL")
    _check_folder(folder)
    try:
        with FileLock(folder / LOCK, timeout=0):
            return _locked(source, folder, options)
    except Timeout as error:
        raise CondmixError(f"another download is writing to {folder}: wait for it, or choose another folder") from error
    except sqlite3.DatabaseError as error:
        raise CondmixError(
            f"{folder / LEDGER} can't be used ({error}); finished shards are whole: mend the cause, run again"
        ) from error


def _check_folder(folder: Path) -> None:
    """Make the folder; CondmixError where something lies in the way, before anything is fetched."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise CondmixError(f"{folder} can't be a folder, since there is a file in its place: choose another") from error
    for path in (folder / LEDGER, folder / MANIFEST, folder / LOCK, *folder.glob(SHARDS)):
        if (path.exists() or path.is_symlink()) and not path.is_file():
            raise CondmixError(f"{path} is not a file: move it away, or choose another folder")


def _locked(source: Path, folder: Path, options: Options) -> str:
    ledger = Ledger(folder, source, options.size)
    try:
        if options.retry:
            ledger.retry()
        asyncio.run(_download(ledger, options))
        return _result(ledger, options.size, options.min_success)
    finally:
        ledger.close()


def _result(ledger: Ledger, size: int, min_success: float) -> str:
    """Write the manifest, and judge the share of URLs that gave a picture."""
    states, errors, shards = ledger.states(), ledger.errors(), ledger.shards()
    urls, pictures = sum(states.values()), states["done"]
    manifest = {"urls": urls, "repeated_urls": ledger.repeated(), "pictures": pictures, "size": size}
    write_json(ledger.folder / MANIFEST, manifest | {"errors": errors, "shards": shards})
    why = ", ".join(f"{error}: {count:,}" for error, count in errors.items()) or "no failures"
    counts = f"{pictures:,} of {urls:,} URLs gave a picture ({why})"
    if PRIVATE in errors:
        counts += f"; if you trust the list, --allow-private --retry asks private addresses too ({errors[PRIVATE]:,})"
    if pictures < min_success * urls:
        raise CondmixError(
            f"only {counts}, which is {pictures / urls:.1%} and less than --min-success {min_success}; "
            f"--retry asks {states['failed']:,} again whose trouble may have passed"
        )
    return f"{counts}; {len(shards):,} shards in {ledger.folder}"


async def _download(ledger: Ledger, options: Options) -> None:
    """Ask for every row that waits, until none does."""
    limits, loop = options.limits, asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(options.connections))  # looks names up: slow ones must not queue
    states = ledger.states()
    settled = states["done"] + states["failed"] + states["dead"]
    bar = tqdm(total=sum(states.values()), initial=settled, desc="download", unit="url", mininterval=0.5)
    samples: list[tuple[ListedUrl, Picture]] = []
    pictures = 0
    with bar, ThreadPoolExecutor(cores()) as decoders:
        async with _session(options) as session:

            async def ask(row: ListedUrl) -> tuple[ListedUrl, Picture | Failure]:
                try:
                    body = await _get(session, row.url, limits)
                    return row, await loop.run_in_executor(decoders, to_jpeg, body, options.size, limits)
                except Failure as failure:
                    return row, failure

            async def finish_shard() -> None:
                path = ledger.folder / f"{ledger.next_shard():06d}.tar"
                await loop.run_in_executor(decoders, write_shard, path, samples)
                ledger.done(path.name, [row.key for row, _ in samples])
                ledger.commit()
                samples.clear()

            async with aclosing(_outcomes(ledger, ask, options.connections)) as outcomes:
                async for row, outcome in outcomes:
                    if isinstance(outcome, Failure):
                        bar.update(_record(ledger, row, outcome, limits))
                        continue
                    samples.append((row, outcome))
                    pictures += 1
                    bar.set_postfix_str(f"{pictures / max(1e-3, bar.format_dict['elapsed']):.1f} img/s", refresh=False)
                    bar.update()
                    if len(samples) == options.per_shard:
                        await finish_shard()
            if samples:
                await finish_shard()


async def _outcomes(
    ledger: Ledger,
    ask: Callable[[ListedUrl], Coroutine[Any, Any, tuple[ListedUrl, Picture | Failure]]],
    connections: int,
) -> AsyncGenerator[tuple[ListedUrl, Picture | Failure], None]:
    """What comes of asking for rows, `connections` at a time, as it comes; waits for those that are due later."""
    running: set[asyncio.Task] = set()
    committed = time.monotonic()
    try:
        while True:
            running |= {asyncio.create_task(ask(row)) for row in ledger.take(connections - len(running))}
            if running:
                finished, running = await asyncio.wait(running, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    yield task.result()
            elif (wait := ledger.next_wait()) is not None:
                await asyncio.sleep(min(TICK, wait))
            else:
                break
            if time.monotonic() > committed + TICK:
                ledger.commit()
                committed = time.monotonic()
        ledger.commit()
    finally:
        for task in running:
            task.cancel()


def _record(ledger: Ledger, row: ListedUrl, failure: Failure, limits: Limits) -> bool:
    """Enter a failure in the ledger; whether it is the last of its row in this run."""
    if not failure.passing:
        ledger.dead(row.key, failure.error)
        return True
    asked = failure.wait or 0.0
    if row.attempts + 1 >= limits.attempts or asked > limits.longest_asked or failure.error == PRIVATE:
        ledger.failed(row.key, failure.error)
        return True
    backoff = limits.first_wait * 2**row.attempts * random.uniform(0.5, 1.5)
    ledger.again(row.key, failure.error, max(backoff, asked))
    return False


def _session(options: Options) -> aiohttp.ClientSession:
    limits = options.limits
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=options.connections,
            keepalive_timeout=2,  # on a list of many hosts, idle connections would outnumber those at work
            socket_factory=None if options.allow_private else public_socket,
        ),
        trust_env=False,  # neither proxies nor .netrc
        cookie_jar=aiohttp.DummyCookieJar(),  # the other one grows with every host
        timeout=aiohttp.ClientTimeout(total=limits.total, connect=limits.connect, sock_read=limits.read),
        headers=HEADERS,
        auto_decompress=False,  # else a small body could become any number of bytes
    )


async def _get(session: aiohttp.ClientSession, url: str, limits: Limits) -> bytes:
    """The body of a URL that claims to be a picture; what goes wrong on the way is a Failure."""
    body = bytearray()
    try:
        async with session.get(url, max_redirects=limits.redirects) as response:
            _check_head(response, limits)
            async for chunk in response.content.iter_chunked(CHUNK):
                body += chunk
                if len(body) > limits.bytes:
                    raise Failure("too many bytes")
            return bytes(body)
    except TimeoutError as error:
        raise Failure("time-out", passing=True) from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError) as error:
        raise Failure("bad URL") from error  # UnicodeError: a host's name that IDNA can't spell
    except aiohttp.TooManyRedirects as error:
        raise Failure("redirects") from error
    except aiohttp.ClientConnectorDNSError as error:
        if error.os_error.errno == socket.EAI_AGAIN:  # the name server, or our network, is not there
            raise Failure("name server", passing=True) from error
        raise Failure("unknown host") from error
    except aiohttp.ClientSSLError as error:
        raise Failure("TLS") from error
    except aiohttp.ClientPayloadError as error:
        raise Failure("cut off", passing=True) from error
    except aiohttp.ClientResponseError as error:
        raise Failure("not HTTP") from error
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(getattr(error, "os_error", None), PrivateAddress):
            raise Failure(PRIVATE, passing=True) from error  # name servers may answer otherwise another day
        raise Failure("connection", passing=True) from error  # refused, reset, unreachable


def _check_head(response: aiohttp.ClientResponse, limits: Limits) -> None:
    status, headers = response.status, response.headers
    if status != 200:
        passing = status in (408, 425, 429) or 500 <= status < 600
        raise Failure(f"status {status}", passing, asked_wait(headers.get("Retry-After"), headers.get("Date")))
    if not response.content_type.startswith("image/") and response.content_type not in UNTYPED:
        raise Failure("content type")
    if (response.content_length or 0) > limits.bytes:
        raise Failure("too many bytes")
    # As img2dataset does: the owner does not want models to learn from it.
    if {"noai", "noimageai"} & {word.strip().lower() for word in headers.get("X-Robots-Tag", "").split(",")}:
        raise Failure("opted out")


def to_jpeg(body: bytes, size: int, limits: Limits) -> Picture:
    """A picture file -> JPEG with `size` pixels on the shorter side; Failure where it is none."""
    try:
        with open_picture(body) as image:
            original = image.size
            _check_shape(*original, limits)
            image.draft("RGB", (2 * size, 2 * size))  # a large JPEG need not be decoded at full size
            image = to_rgb(image)
            scale = size / min(image.size)
            width, height = (max(size, round(side * scale)) for side in image.size)
            small = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
            file = io.BytesIO()
            small.save(file, "JPEG", quality=95)
    except Failure:
        raise
    except Image.DecompressionBombError as error:
        raise Failure("too many pixels") from error
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise Failure("no picture") from error
    return Picture(file.getvalue(), (width, height), original)


def _check_shape(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise Failure("too many pixels")
    if min(width, height) < limits.shortest or max(width, height) > limits.ratio * min(width, height):
        raise Failure("too small or too narrow")


def write_shard(path: Path, samples: list[tuple[ListedUrl, Picture]]) -> None:
    """A tar in webdataset's layout: key.jpg, key.txt and key.json next to one another, sample by sample."""
    with replacing(path) as part, tarfile.open(part, "w") as tar:
        for row, picture in samples:
            key = f"{row.key:09d}"
            names = ("width", "height", "original_width", "original_height")
            facts: dict[str, Any] = {"key": key, "url": without_credentials(row.url)}
            facts |= zip(names, picture.size + picture.original, strict=True)
            for ending, content in (
                ("jpg", picture.jpeg),
                ("txt", row.caption.encode()),
                ("json", json.dumps(facts).encode()),
            ):
                entry = tarfile.TarInfo(f"{key}.{ending}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
