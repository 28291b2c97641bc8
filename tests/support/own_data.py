"""Writes data as users have them: folders of pictures, and tar shards."""

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from condmix.settings.paths import Paths
from condmix.settings.schema import CaptionsSettings, Data


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    """(H, W, 3) uint8 as a picture file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def random_picture(seed: int, side: int = 16) -> bytes:
    return encoded(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    """Each of the files, by its path below the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def write_tar(path: Path, files: dict[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            payload = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(payload)
            archive.addfile(member, io.BytesIO(payload))
    return path


def write_folder(folder: Path, split: str, samples: Iterable, class_names: list[str]) -> None:
    """(pixels, label, captions) as <split>/<class>/<number>.png, with <split>/captions.jsonl."""
    lines = []
    for number, (pixels, label, captions) in enumerate(samples):
        name = f"{class_names[label]}/{number}.png"
        write(folder, {f"{split}/{name}": encoded(pixels)})
        lines.append(json.dumps({"file": name, "captions": captions}))
    write(folder, {f"{split}/captions.jsonl": "\n".join(lines)})


def write_shard(path: Path, samples: Iterable) -> None:
    """(pixels, label, captions) as <number>.png, .json and .cls."""
    files = {}
    for number, (pixels, label, captions) in enumerate(samples):
        files |= {
            f"{number:05}.png": encoded(pixels),
            f"{number:05}.json": json.dumps({"captions": captions}),
            f"{number:05}.cls": str(label),
        }
    write_tar(path, files)


def params(root: Path, data: Data, templates: Sequence[str] = (), **others) -> SimpleNamespace:
    """What the stages fetch, prepare and captions read, of a profile that asks nothing of its data but pictures."""
    return SimpleNamespace(
        **{
            "root": root,
            "profile": "own",
            "paths": Paths(root, "own"),
            "data": data,
            "captions": CaptionsSettings(templates=tuple(templates)),
            "variants": ("experiment",),
            "perspectives": ("image",),
            "clip": SimpleNamespace(pretrained="openai", weights=None),
            "generated": None,
            "prior": None,
            "evaluate": SimpleNamespace(features=("clip",)),
        }
        | others
    )
