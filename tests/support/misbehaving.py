"""A web server of pictures that misbehaves, on loopback: a path's end, /<behaviour>/<number>, says how.

    python tests/support/misbehaving.py     # prints its port; GET /asked answers {path: times asked}

Picture `number` has one colour, that of `colour(number)`, so that a picture under another's key shows.
"""

import asyncio
import io
import json
import socket
import struct
import subprocess
import sys
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate

from PIL import Image

REASONS = {200: "OK", 302: "Found", 429: "Too Many Requests", 503: "Service Unavailable"}


def colour(number: int) -> tuple[int, int, int]:
    """Six bits of the number in each channel, which JPEG leaves readable."""
    return tuple(((number >> shift) % 64) * 4 + 2 for shift in (12, 6, 0))


def picture(number: int, kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (80, 60)) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, (*colour(number), 255)[: len(mode)]).save(file, kind, quality=95)
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A PNG whose header claims side x side pixels, of which the data fill a part."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


class Misbehaving:
    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def run(self) -> None:
        """Print the port and serve until the process ends."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                path = request.split()[1].decode()
                if path == "/asked":
                    self.answer(writer, json.dumps(self.asked).encode(), "application/json")
                    await writer.drain()
                    continue
                self.asked[path] += 1
                if not await self.act(path, b"\nAuthorization: Basic " in request, writer):
                    break
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(self, writer, body: bytes, kind="image/jpeg", status=200, length: int | None = -1, **headers) -> None:
        """`length` is what the header claims: -1 for the truth, None for no header."""
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Such')}", f"Content-Type: {kind}"]
        if length is not None:
            lines.append(f"Content-Length: {len(body) if length < 0 else length}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def act(self, path: str, known: bool, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, which came with a password if it is `known`; whether the connection goes on."""
        *_, behaviour, number = path.partition("?")[0].split("/")
        number, first = int(number), self.asked[path] == 1
        if first and behaviour.endswith("-once") or not behaviour.endswith("-once"):
            behaviour = behaviour.removesuffix("-once")
        else:
            behaviour = "ok"
        match behaviour:
            case "ok":
                self.answer(writer, picture(number))
            case "png":  # half of it transparent
                self.answer(writer, picture(number, "PNG", "RGBA"), "image/png")
            case "untyped":
                self.answer(writer, picture(number), "application/octet-stream")
            case "slow":
                body = picture(number)
                self.answer(writer, body[:100], length=len(body))
                for start in range(100, len(body), 200):
                    await asyncio.sleep(0.02)
                    writer.write(body[start : start + 200])
            case "silent":
                await asyncio.sleep(3600)
            case "drip":  # a byte now and then, and no end
                self.answer(writer, b"", length=10_000)
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.05)
            case "reset":
                linger = struct.pack("ii", 1, 0)  # close() then sends RST
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return False
            case "truncated":
                self.answer(writer, picture(number)[:300], length=len(picture(number)))
                return False
            case "half":  # of a picture, with nothing that says so
                self.answer(writer, picture(number)[:300], length=None)
                return False
            case "busy":
                self.answer(writer, b"", status=429, Retry_After="1")
            case "busy-until":
                now = formatdate(usegmt=True)
                self.answer(writer, b"", status=503, Retry_After=now, Date=now)
            case "closed":
                self.answer(writer, b"", status=429, Retry_After="86400")
            case "nonsense":
                self.answer(writer, b"", status=503, Retry_After="²")
            case "page":
                self.answer(writer, b"<html>gone</html>", "text/html")
            case "liar":
                self.answer(writer, b"<html>gone</html>")
            case "noai":
                self.answer(writer, picture(number), X_Robots_Tag="noindex, NoAI")
            case "moved":
                self.answer(writer, b"", status=302, Location=f"../ok/{number}")
            case "guarded":
                self.answer(writer, picture(number), status=200 if known else 401)
            case "inside":
                self.answer(writer, b"", status=302, Location="http://127.0.0.2:1/x.jpg")
            case "loop":
                self.answer(writer, b"", status=302, Location=path)
            case "elsewhere":
                self.answer(writer, b"", status=302, Location="file:///etc/hostname")
            case "huge":
                self.answer(writer, b"", length=10**10)
                return False
            case "endless":
                self.answer(writer, b"", length=None)
                while True:
                    writer.write(bytes(1 << 16))
                    await writer.drain()
            case "bomb":
                self.answer(writer, bomb(8000), "image/png")
            case "large-bomb":
                self.answer(writer, bomb(60_000), "image/png")
            case "pixel":
                self.answer(writer, picture(number, "GIF", size=(1, 1)), "image/gif")
            case "narrow":
                self.answer(writer, picture(number, size=(2000, 40)))
            case "garbage":
                writer.write(b"this is not HTTP\r\n\r\n")
                return False
            case _:
                self.answer(writer, b"", "text/plain", int(behaviour))
        return True


@contextmanager
def serving() -> Iterator[str]:
    """A server in a process of its own; yields its address, http://127.0.0.1:port."""
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


def asked(address: str) -> Counter[str]:
    """{path: times asked} of the server at `address`."""
    with urllib.request.urlopen(f"{address}/asked", timeout=30) as answer:
        return Counter(json.load(answer))


if __name__ == "__main__":
    asyncio.run(Misbehaving().run())
