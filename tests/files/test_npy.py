"""Pixels on disk."""

import errno
import hashlib
from pathlib import Path

import numpy as np
import pytest

from condmix import CondmixError
from condmix.files.npy import write_pixels


def test_parts_become_one_array_and_its_hash(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), np.uint8)
    strided = np.asfortranarray(pixels[4:])
    sha256 = write_pixels(tmp_path / "a.npy", pixels.shape, [pixels[:3], pixels[3], strided])
    assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), pixels)
    assert sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()


def test_other_pixels_than_promised_are_refused(tmp_path):
    with pytest.raises(CondmixError, match=r"a\.npy was to hold 3 pictures, but 2 came"):
        write_pixels(tmp_path / "a.npy", (3, 2, 2, 3), np.zeros((2, 2, 2, 3), np.uint8))
    with pytest.raises(CondmixError, match="pixels are uint8, got float64"):
        write_pixels(tmp_path / "a.npy", (3, 2, 2, 3), np.zeros((3, 2, 2, 3)))


def test_a_full_disk_is_an_error_that_can_be_caught():
    with pytest.raises(OSError) as error:
        write_pixels(Path("/dev/full"), (1000, 32, 32, 3), np.zeros((1000, 32, 32, 3), np.uint8))
    assert error.value.errno == errno.ENOSPC
