"""The decoder: every kind of picture that people have is read right, or refused in one sentence that names it."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from condmix import CondmixError
from condmix.files.pictures import BYTES, decode, read_picture
from own_data import encoded

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def saved(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def oriented(orientation: int) -> bytes:
    """EXIF data that say how a camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def with_chunk(png: bytes, kind: bytes, content: bytes, damage: int = 0) -> bytes:
    """A PNG file with one more chunk behind its header, whose checksum is off by `damage`."""
    body = kind + content
    chunk = struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body) ^ damage)
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_every_format_that_is_read_whatever_the_file_is_called(form):
    flat = Image.new("RGB", (16, 16), (200, 60, 20))
    options = {"lossless": True} if form == "WEBP" else {}
    found = decode(saved(flat, form, **options), "a.jpg")
    assert found.shape == (16, 16, 3) and found.dtype == np.uint8
    assert abs(found.astype(int) - (200, 60, 20)).max() <= 6


def test_postscript_named_jpg_starts_no_program(tmp_path, monkeypatch):
    import subprocess

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    with pytest.raises(CondmixError, match=r"1.jpg does not decode \(not an image\): read are JPEG, PNG, "):
        decode(script, "1.jpg")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_photo_is_turned_upright(form, orientation):
    """As Pillow's own exif_transpose turns it."""
    from PIL import ImageOps

    options = {"quality": 100, "subsampling": 0} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    payload = saved(Image.fromarray(PIXELS), form, exif=oriented(orientation), **options)
    with Image.open(io.BytesIO(payload)) as photo:
        expected = np.asarray(ImageOps.exif_transpose(photo))
    np.testing.assert_array_equal(decode(payload, "a photo"), expected)
    assert expected.shape == ((8, 6, 3) if orientation > 4 else (6, 8, 3))


MODES = {
    "1": (Image.new("1", (2, 2), 1), 255),
    "L": (Image.new("L", (2, 2), 90), 90),
    "P": (Image.new("L", (2, 2), 90).convert("P"), 90),
    "I;16": (Image.fromarray(np.full((2, 2), 0x8080, np.uint16)), 0x80),
    "half transparent": (Image.new("RGBA", (2, 2), (0, 0, 0, 128)), 127),
    "transparent": (Image.new("LA", (2, 2), (7, 0)), 255),
    "CMYK": (Image.new("CMYK", (2, 2), (0, 0, 0, 155)), 100),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_rgb_and_transparency_white(name):
    image, expected = MODES[name]
    found = decode(saved(image, "TIFF" if name == "CMYK" else "PNG"), "a test")
    assert found.shape == (2, 2, 3) and abs(found.astype(int) - expected).max() <= 1


def test_a_transparent_colour_of_a_palette_becomes_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    found = decode(saved(image, "PNG", transparency=0), "a test")
    np.testing.assert_array_equal(found, [[[255, 255, 255], [200, 100, 50]]])


def test_sixteen_bits_are_scaled_and_not_cut_off():
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for form in ("PNG", "TIFF"):
        found = decode(saved(Image.fromarray(grey), form), "a test")
        np.testing.assert_array_equal(found, np.repeat(np.round(grey / 257)[..., None], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_no_agreed_range_are_refused(dtype):
    with pytest.raises(CondmixError, match="a test does not decode .*32 bits per pixel"):
        decode(saved(Image.fromarray(np.ones((2, 2), dtype)), "TIFF"), "a test")


PNG = encoded(PIXELS)
METADATA = {
    "a long workflow": with_chunk(PNG, b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(bytes(1 << 21))),
    "a long comment": with_chunk(PNG, b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 21))),
    "a profile that is none": with_chunk(PNG, b"iCCP", b"x\0\0" + b"?" * 20),
    "EXIF that is none": with_chunk(PNG, b"eXIf", b"nothing"),
    "a damaged text": with_chunk(PNG, b"tEXt", b"Comment\0x", damage=1),
    "bytes behind the end": PNG + b"anything, IDAT",
    "EXIF cut short": saved(Image.fromarray(PIXELS), "PNG", exif=oriented(1)[:12]),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_are_no_reason_to_refuse_whole_pixels(name):
    np.testing.assert_array_equal(decode(METADATA[name], "a test"), PIXELS)


def test_a_jpeg_with_damaged_exif_is_read():
    payload = saved(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode(payload, "a test").shape == PIXELS.shape


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_pixels_that_are_cut_short_are_refused(form, kept):
    payload = saved(Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)), form)
    with pytest.raises(CondmixError, match="a test does not decode"):
        decode(payload[: int(kept * len(payload))], "a test")


def test_a_flipped_bit_in_a_png_is_refused():
    damaged = bytearray(PNG)
    damaged[PNG.index(b"IDAT") + 20] ^= 1
    with pytest.raises(CondmixError, match="a test does not decode .its chunk IDAT is damaged"):
        decode(bytes(damaged), "a test")


def test_a_panorama_above_the_limit_is_refused_before_it_is_decoded():
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 0, 0, 0, 0)
    kind = b"IHDR" + header
    png = PNG[:8] + struct.pack(">I", 13) + kind + struct.pack(">I", zlib.crc32(kind)) + PNG[33:]
    with pytest.raises(CondmixError, match="wide.png has more than 178,956,970 pixels: make it smaller"):
        decode(png, "wide.png")


def test_a_file_that_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path, "/dev/zero"):
        with pytest.raises(CondmixError, match="is not a regular file"):
            read_picture(type(tmp_path)(path))
    with pytest.raises(CondmixError, match="there is no file .*gone.png"):
        read_picture(tmp_path / "gone.png")


def test_a_file_of_too_many_bytes_is_not_read(tmp_path):
    (tmp_path / "1.png").touch()
    os.truncate(tmp_path / "1.png", BYTES + 1)  # a hole takes no room on the disk
    with pytest.raises(CondmixError, match="1.png has 536,870,913 bytes, and more than 536,870,912 are not read"):
        read_picture(tmp_path / "1.png")


def test_a_sentence_holds_no_control_character():
    """A file's name may move the cursor, clear the screen or begin a line of its own."""
    sentence = str(CondmixError("train/\x1b[2Ja\n\udce9\u202e.png: é 日本 🙂"))
    assert sentence == "train/\\x1b[2Ja\\n\\udce9\\u202e.png: é 日本 🙂"
