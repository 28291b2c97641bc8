"""Stage prepare: archives -> square pictures of one size, with ids, labels and attributes, as arrays on disk.

A picture is cropped to its central square and resized with an antialiasing filter: the mean of whole blocks
where the side is a multiple of the target, Lanczos elsewhere. All cores decode and resize; only the few pictures at
work are in memory, and go in order into a file that maps.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from condmix import CondmixError
from condmix.datasets import SPLITS, Dataset
from condmix.files.atomic import replacing_folder
from condmix.files.npy import write_pixels
from condmix.runtime.cores import cores
from condmix.runtime.prefetch import prefetch
from condmix.settings import load
from condmix.settings.schema import Params


def main(params: Params) -> None:
    """Writes {split}_images.npy, _ids, _labels, _attributes, ... and meta.json to `params.paths.dataset`."""
    data = load.plugin("datasets", params.data.dataset)(params.paths.archives, params.data.world)
    prepare(data, params.data.dataset, params.data.image_size, params.paths.dataset)


def prepare(data: Dataset, name: str, size: int, folder: Path, threads: int | None = None) -> None:
    """Writes the whole folder, or leaves what was there as it was. Any number of threads (None: one for each core)
    writes the same bytes.
    """
    threads = threads or cores()
    with replacing_folder(Path(folder)) as partial:
        meta = {
            "dataset": name,
            "image_size": size,
            "class_names": list(data.class_names),
            "attributes": data.attributes,
            "splits": {split: write_split(data, split, size, partial, threads) for split in SPLITS},
        }
        (partial / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def write_split(data: Dataset, split: str, size: int, folder: Path, threads: int) -> dict:
    """Writes one split's arrays; returns its entry of meta.json."""
    ids = np.array(data.ids(split), np.int64)
    columns = {
        "ids": ids,
        "labels": data.labels(split),
        "attributes": data.attribute_values(split),
        "mentions": data.mentions(split),
        "held_out": data.held_out(split),
    }
    sums = {}
    for name, column in columns.items():
        if column is None:
            continue
        if len(column) != len(ids):
            raise CondmixError(f"{split} has {len(ids)} pictures but {len(column)} rows of {name}")
        column = np.ascontiguousarray(column)
        np.save(folder / f"{split}_{name}.npy", column)
        sums[name] = hashlib.sha256(column.data).hexdigest()

    made = prefetch(lambda decoder: square(decoder(), size), data.decoders(split), threads, 4 * threads)
    pictures = tqdm(made, f"prepare {split}", total=len(ids), unit="img", mininterval=0.5)
    sha256 = write_pixels(folder / f"{split}_images.npy", (len(ids), size, size, 3), pictures)
    return {"count": len(ids), "images_sha256": sha256, "sha256": sums}


def square(picture: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (size, size, 3) uint8: the central square, resized without aliasing."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cropped = picture[top : top + side, left : left + side]
    if side == size:
        return cropped
    image = Image.fromarray(np.ascontiguousarray(cropped))
    if side % size == 0:
        return np.asarray(image.reduce(side // size))
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
