"""Picture files -> upright, opaque 8-bit RGB: the one decoder of data sets, of `generate --image` and of downloads.

Read are JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF, whatever a file is called; other formats of Pillow are not, as some
of them run programs (a PostScript file starts Ghostscript). Of an animation or a file of several pages the first
picture is taken, transparency is laid on white, EXIF's orientation is applied, 16-bit grey is scaled to 8 bits. Other
metadata are ignored, so that damage in them is no reason to refuse whole pixels; pixels that are cut short are refused.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from condmix import CondmixError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
BYTES = 1 << 29  # of a picture file; more is refused before it is read
PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)  # 179 megapixels, above which Pillow raises an error of its own
TURNS: dict[int | None, Image.Transpose] = {  # EXIF's orientation -> what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PNG = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = {b"tRNS", b"eXIf"}  # of the chunks that a decoder need not know: transparency and orientation

# Of metadata that are damaged and ignored, and of half of PIXELS, which is no decompression bomb yet.
warnings.filterwarnings("ignore", module=r"PIL\.")


def is_picture(name: str) -> bool:
    """Whether a file's name ends as those of pictures do."""
    return name.lower().endswith(SUFFIXES)


def decode(payload: bytes, source: str) -> np.ndarray:
    """A picture file's bytes to (H, W, 3) uint8 RGB; CondmixError, naming `source`, where they are none."""
    try:
        with open_picture(payload) as picture:
            return np.asarray(to_rgb(picture))
    except Image.DecompressionBombError as error:
        raise CondmixError(f"{source} has more than {PIXELS:,} pixels: make it smaller") from error
    except UnidentifiedImageError as error:
        raise CondmixError(f"{source} does not decode (not an image): read are {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow raises its own, OSError, SyntaxError, struct.error, ...
        raise CondmixError(f"{source} does not decode ({error or type(error).__name__})") from error


def read_picture(path: Path) -> np.ndarray:
    """A picture file to (H, W, 3) uint8 RGB; CondmixError where there is none."""
    return decode(read_file(path), str(path))


def read_file(path: Path) -> bytes:
    """A regular file's bytes, at most BYTES of them: a pipe or a device could keep the reader waiting for ever."""
    if not path.exists():
        raise CondmixError(f"there is no file {path}")
    if not path.is_file():
        raise CondmixError(f"{path} is not a regular file, so it is not read")
    check_size(path.stat().st_size, str(path))
    try:
        return path.read_bytes()
    except PermissionError as error:
        raise CondmixError(f"{path} can't be read ({error.strerror})") from error


def check_size(size: int, source: str, most: int = BYTES) -> None:
    """CondmixError where a file, or an archive's entry, has too many bytes to be read into memory."""
    if size > most:
        raise CondmixError(f"{source} has {size:,} bytes, and more than {most:,} are not read: make it smaller")


def open_picture(payload: bytes) -> Image.Image:
    """Pillow's picture with nothing decoded yet. Raises what Pillow raises, DecompressionBombError above PIXELS."""
    if payload.startswith(PNG):
        payload = _bare_png(payload)
    return Image.open(io.BytesIO(payload), formats=FORMATS)


def to_rgb(picture: Image.Image) -> Image.Image:
    """Upright, on white where it is transparent, 8 bits per channel. Raises what Pillow raises, ValueError for "F"."""
    picture.load()
    turn = _turn(picture)
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray(np.round(np.asarray(picture, np.float32) / 257).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise ValueError(f"it has 32 bits per pixel, mode {picture.mode}, of no agreed range: save it with 8 or 16")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    return picture if turn is None else picture.transpose(turn)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What EXIF's orientation asks for; nothing where the metadata are damaged."""
    try:
        return TURNS.get(picture.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # SyntaxError, struct.error, ValueError, ...
        return None


def _bare_png(payload: bytes) -> bytes:
    """A PNG file of the chunks alone that make its pixels, and of those that pass their checksum.

    Pillow refuses whole pictures for a long text beside them, such as the workflow that an image generator notes.
    """
    kept, at = [PNG], len(PNG)
    while at + 12 <= len(payload):
        length, kind = struct.unpack_from(">I4s", payload, at)
        chunk = payload[at : at + 12 + length]
        at += len(chunk)
        whole = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        needed = not kind[0] & 0x20  # capital: nobody can draw the picture without it
        if needed and not whole:
            raise ValueError(f"its chunk {kind.decode('latin1')} is damaged or cut short")
        if whole and (needed or kind in PNG_KEPT):
            kept.append(chunk)
        if kind == b"IEND":
            break
    return b"".join(kept)
