"""Arrays of pixels -> .npy files, a few rows at a time: real data exceed memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from condmix import CondmixError


def write_pixels(path: Path, shape: Sequence[int], parts: Iterable[np.ndarray]) -> str:
    """Write uint8 parts (any number of rows each) one after the other as an array of `shape`; the sha256 of its data.

    CondmixError if they are not what `shape` promises. They are written in order and not through a mapping: there a
    full disk would kill the process, here it is an OSError.
    """
    digest, count = hashlib.sha256(), 0
    with open(path, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            if part.dtype != np.uint8:
                raise CondmixError(f"pixels are uint8, got {part.dtype} for {path.name}")
            data = part.tobytes()
            file.write(data)
            digest.update(data)
            count += len(data)
    if count != math.prod(shape):
        row = math.prod(shape[1:])
        raise CondmixError(f"{path.name} was to hold {shape[0]} pictures, but {count / row:g} came")
    return digest.hexdigest()
