"""Pictures as people have them, and as they should not."""

from __future__ import annotations

import io
import zlib
from typing import Any

from PIL import Image

import misbehaving


def picture(form: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (20, 16), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, form, **options)
    return file.getvalue()


def _chunk(name: bytes, content: bytes) -> bytes:
    import struct

    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def long_text() -> bytes:
    """A PNG whose text unpacks to 3 MB, as picture generators write their workflow."""
    whole = picture()
    text = b"workflow\0\0" + zlib.compress(b"x" * 3_000_000)
    at = whole.index(b"IDAT") - 4
    return whole[:at] + _chunk(b"zTXt", text) + whole[at:]


def odd_pictures() -> dict[str, tuple[str, bytes]]:
    """{what: (ending, file)}."""
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 16\nshowpage\n"
    bmp = bytearray(picture("BMP"))
    bmp[18:26] = b"\xff\xff\xff\x3f\xff\xff\xff\x3f"
    exif = Image.Exif()
    exif[274] = 6
    return {
        "PostScript": (".jpg", postscript),
        "a PNG named .jpg": (".jpg", picture()),
        "a GIF named .jpg": (".jpg", picture("GIF", "P")),
        "a TIFF named .png": (".png", picture("TIFF")),
        "a PDF named .png": (".png", picture("PDF")),
        "an ICO named .png": (".png", picture("ICO")),
        "a PPM named .png": (".png", picture("PPM")),
        "a BMP of 10^18 pixels": (".png", bytes(bmp)),
        "a PNG of 64 megapixels": (".png", misbehaving.bomb(8000)),
        "a PNG of 3600 megapixels": (".png", misbehaving.bomb(60_000)),
        "a long text": (".png", long_text()),
        "16 bits": (".png", picture(mode="I;16")),
        "CMYK": (".jpg", picture("JPEG", "CMYK")),
        "LA": (".png", picture(mode="LA")),
        "RGBA": (".png", picture(mode="RGBA")),
        "1 bit": (".png", picture(mode="1")),
        "palette": (".png", picture(mode="P")),
        "1x1": (".png", picture(size=(1, 1))),
        "1x5000": (".png", picture(size=(1, 5000))),
        "floats": (".png", picture("TIFF", "F")),
        "turned by EXIF": (".jpg", picture("JPEG", exif=exif)),
        "animated": (".webp", picture("WEBP")),
        "damaged EXIF": (".jpg", picture("JPEG", exif=b"Exif\0\0" + bytes(range(40)))),
        "HTML": (".jpg", b"<html></html>"),
        "SVG": (".png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        "text": (".png", b"a picture"),
    }
