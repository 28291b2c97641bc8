"""Vectors (N, D) of one perspective <-> one safetensors file that knows what it was made from.

Vectors are stored as fp16 with unit norm. The metadata hold the key (perspective, split, encoder, preprocessing,
data, count, code), the mean and sd of the norms before normalisation and the sha256 of all this; a reader refuses
a file whose key is not the one it expects. Where the perspective's name does not say it, they hold `of`: what the
vectors were made from, "image", "caption" or "class". Where they were made from texts they say how many of these
the encoder cut (`cut_facts`).

Vectors may be centred: v - c with unit norm again, for the mean c of the training split's unit vectors v. The cache of
either split then holds c too. Without that, CLIP's vectors of one kind lie in a narrow cone about c (Liang et al. 2022,
arXiv:2203.02053), and most of what a fusion sees is the same for all pictures.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from condmix import CondmixError
from condmix.files.artifacts import damaged, read_tensors, read_tensors_metadata, require
from condmix.files.atomic import replacing

KEY = ("perspective", "split", "encoder", "preprocessing", "data", "count", "code")
REMEDY = "dvc repro embed"
NUMBER = re.compile(r"[1-9]\d*")


def cache_key(
    perspective: str, split: str, encoder: tuple[str, str], data: str, count: int, code: str = ""
) -> dict[str, str]:
    """The key of a cache: an Encoder's (id, preprocessing), hashes of what it read and ran, the number of rows."""
    values = (perspective, split, *encoder, data, str(count), code)
    return dict(zip(KEY, values, strict=True))


def write_cache(
    path: Path,
    vectors: np.ndarray | Tensor,
    present: np.ndarray | Tensor,
    key: Mapping[str, str],
    facts: Mapping[str, str] = MappingProxyType({}),
    centre: Tensor | None = None,
) -> None:
    """Check, normalise and write vectors (N, D), of which row i counts only where present (N,) is True.

    Absent rows are stored as zeros, `facts` as further metadata; `centre` (D,) float32 is subtracted. CondmixError
    names the first row that is not finite or has no direction, or the shape or count that is wrong; the file appears
    whole or not at all.
    """
    vectors, present = torch.as_tensor(vectors).float(), torch.as_tensor(present)
    _check(vectors, present, key)
    norms = vectors[present].norm(dim=-1)
    unit = torch.zeros_like(vectors)
    unit[present] = vectors[present] / norms[:, None]
    if centre is not None:
        unit[present] = centred(unit[present], centre)
        if not (unit[present].norm(dim=-1) > 0).all():
            raise CondmixError(
                f"embeddings of {key['perspective']} ({key['split']}) hold a vector that is the mean of all, so that "
                "nothing is left when it is centred: set embed.centre to false"
            )
    tensors = {"vectors": unit.half(), "present": present, **({} if centre is None else {"centre": centre})}
    metadata = {
        **key,
        **facts,
        "dim": str(vectors.shape[1]),
        "norm_mean": f"{norms.mean() if len(norms) else 0:.6g}",
        "norm_sd": f"{norms.std(correction=0) if len(norms) else 0:.6g}",
    }
    metadata["sha256"] = _digest(tensors, metadata)
    with replacing(path) as part:
        save_file(tensors, part, metadata)
        _sort_header(part)


def read_cache(path: Path, key: Mapping[str, str] | None) -> tuple[Tensor, Tensor, dict[str, str]]:
    """Vectors (N, D) fp16, present (N,) bool and the metadata; CondmixError where the file is damaged.

    With a key, or a part of one, a file made from anything else is refused, naming both values.
    """
    metadata = read_metadata(path)
    for field, expected in (key or {}).items():
        if metadata[field] != expected:
            raise CondmixError(
                f"{path} was made with {field} {_short(metadata[field])}, but {_short(expected)} is needed: "
                "make it again (dvc repro embed)"
            )
    tensors, _ = read_tensors(path, REMEDY)
    vectors = require(tensors, "vectors", torch.float16, (None, None), path, REMEDY)
    present = require(tensors, "present", torch.bool, vectors.shape[:1], path, REMEDY)
    if "centre" in tensors:
        require(tensors, "centre", torch.float32, vectors.shape[1:], path, REMEDY)
    if _digest(tensors, metadata) != metadata["sha256"]:
        raise damaged(path, "its content does not match its checksum", REMEDY)
    return vectors, present, metadata


def read_centre(path: Path) -> Tensor | None:
    """What was subtracted from a cache's vectors (D,) float32; None where nothing was."""
    read_cache(path, None)  # refuses what is damaged
    return read_tensors(path, REMEDY)[0].get("centre")


def centre_of(vectors: np.ndarray | Tensor) -> Tensor:
    """The mean (D,) of vectors (N, D) after each has got unit norm; zeros where there are none."""
    unit = torch.nn.functional.normalize(torch.as_tensor(vectors).double(), dim=-1)
    return unit.sum(dim=0).div(max(1, len(unit))).float()


def centred(unit: Tensor, centre: Tensor) -> Tensor:
    """(v - c) / |v - c| for unit vectors v (..., D); zeros where nothing but rounding is left."""
    moved = unit - centre
    length = moved.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-6, moved / length, 0)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a cache, without its vectors."""
    metadata = read_tensors_metadata(path, REMEDY)
    missing = [field for field in (*KEY, "dim", "sha256") if field not in metadata]
    if missing:
        raise damaged(path, f"it is not an embedding cache: its metadata lack {', '.join(missing)}", REMEDY)
    if not metadata["dim"].isdecimal():
        raise damaged(path, f"its dim is {metadata['dim']!r}", REMEDY)
    return metadata


def cut_facts(beyond: Sequence[int], limit: int) -> dict[str, str]:
    """Metadata of texts of which the encoder did not read the last `beyond` tokens, since it reads `limit`."""
    cut = [tokens for tokens in beyond if tokens]
    mean, most = (sum(cut) / len(cut), max(cut)) if cut else (0, 0)
    return {
        "texts": str(len(beyond)),
        "texts_cut": str(len(cut)),
        "tokens_read": str(limit),
        "tokens_cut_mean": f"{mean:.1f}",
        "tokens_cut_most": str(most),
    }


def cut_sentence(metadata: Mapping[str, str]) -> str | None:
    """What was cut, in words; None where everything was read."""
    if metadata.get("texts_cut", "0") == "0":
        return None
    return (
        "{texts_cut} of {texts} texts are longer than the {tokens_read} tokens that the encoder reads, and were cut by "
        "{tokens_cut_mean} tokens on average, {tokens_cut_most} at most"
    ).format_map(metadata)


def numbered(folder: Path, kind: str) -> list[str]:
    """The perspectives <kind>_1, <kind>_2, ... that have caches in a folder, by number."""
    names = [path.stem for path in folder.glob(f"{kind}_*.safetensors")]
    numbers = [name.removeprefix(f"{kind}_") for name in names]
    return [f"{kind}_{number}" for number in sorted(int(text) for text in numbers if NUMBER.fullmatch(text))]


def mean(vectors: Tensor) -> Tensor:
    """m / |m| (..., D) for m, the mean of unit vectors (..., K, D), as in float32.

    Every caption has the same weight, as in the fusion `mean`, which averages views of one norm too. There m enters
    the dense layer times sqrt(D), the shorter the less the captions agree. In a slot m gets unit norm like all vectors
    (a fusion then scales it by sqrt(D)), so it does not show how much the captions agree.
    """
    return torch.nn.functional.normalize(vectors.float().mean(dim=-2), dim=-1)


def _check(vectors: Tensor, present: Tensor, key: Mapping[str, str]) -> None:
    what = f"embeddings of {key['perspective']} ({key['split']})"
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise CondmixError(f"{what} must have the shape (N, D), not {tuple(vectors.shape)}")
    if present.dtype != torch.bool or present.shape != vectors.shape[:1]:
        raise CondmixError(
            f"{what}: present must be {len(vectors)} booleans, "
            f"not {tuple(present.shape)} of {str(present.dtype).removeprefix('torch.')}"
        )
    if str(len(vectors)) != key["count"]:
        raise CondmixError(f"{what} have {len(vectors)} rows, but there are {key['count']} images")
    for problem, bad in (
        ("a NaN or infinite value", ~vectors.isfinite().all(dim=-1)),
        ("only zeros, so no direction", (vectors == 0).all(dim=-1)),
    ):
        rows = (bad & present).nonzero()[:, 0]
        if len(rows):
            raise CondmixError(f"{what} hold {problem} in {len(rows)} rows, first in row {int(rows[0])}")


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Of the content and of what is said of it."""
    facts = {name: value for name, value in metadata.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in ("vectors", "present", "centre"):
        if name in tensors:
            digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _sort_header(path: Path) -> None:
    """Put a safetensors file's JSON header in order: the library writes metadata in another order every time."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.dumps(json.loads(file.read(length)), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        file.seek(8)
        file.write(header.encode().ljust(length))


def _short(value: str) -> str:
    return value if len(value) <= 80 else f"{value[:60]}…{value[-16:]}"
