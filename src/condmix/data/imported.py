"""Vectors that someone else computed: one file per perspective and split, .safetensors or .npz.

N pictures of the file, D width. docs/embeddings.md describes the format and shows how to write it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from condmix import CondmixError
from condmix.files.artifacts import read_arrays, read_tensors
from condmix.settings.perspectives import parse

REMEDY = "the program that wrote it again (docs/embeddings.md describes the format)"
KEPT = (torch.float16, torch.float32, torch.float64)
FACTS = ("perspective", "split", "encoder", "of")
OF = ("image", "caption", "class")


@dataclass(frozen=True)
class EmbeddingFile:
    """What a file holds; `encoder` names what made the vectors, `of` what they were made from."""

    path: Path
    vectors: np.ndarray  # (N, D) float32
    ids: np.ndarray  # (N,) int64, the data set's ids of the pictures
    encoder: str
    of: str  # "image", "caption" or "class"

    @property
    def width(self) -> int:
        """D."""
        return int(self.vectors.shape[1])

    def ordered(self, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (len(ids), D) float32 in the order of a data set's ids, zero where the file has none, and which of
        them it has (len(ids),) bool; CondmixError where it has a picture that the data set has not."""
        place = {id_: row for row, id_ in enumerate(ids)}
        foreign = [id_ for id_ in self.ids.tolist() if id_ not in place]
        if foreign:
            raise CondmixError(
                f"{self.path} has vectors of {len(foreign)} pictures that the data set does not have, "
                f"first of id {foreign[0]}"
            )
        rows = np.array([place[id_] for id_ in self.ids.tolist()], dtype=np.int64)
        vectors, present = np.zeros((len(ids), self.width), np.float32), np.zeros(len(ids), dtype=bool)
        vectors[rows], present[rows] = self.vectors, True
        return vectors, present


def read_splits(files: Mapping[str, Path], perspective: str, captions: int) -> dict[str, EmbeddingFile]:
    """{split: its file} of a perspective's files by split; CondmixError unless all are of one encoder.

    Vectors of captions must be of one of the first `captions`, which are in use.
    """
    found = {split: read_embeddings(path, perspective, split) for split, path in files.items()}
    for field in ("encoder", "of", "width"):
        values = {split: getattr(one, field) for split, one in found.items()}
        if len(set(values.values())) > 1:
            raise CondmixError(
                f"embed.imports: the files of {perspective} differ in {field}, {values['train']} in training and "
                f"{values['test']} in the test split; both must come from one encoder"
            )
    number = parse(perspective).number or 0
    if number > captions and any(one.of == "caption" for one in found.values()):
        raise CondmixError(
            f"embed.imports: {perspective} is of each picture's caption number {number}, but {captions} are in use"
        )
    return found


def read_embeddings(path: Path, perspective: str, split: str) -> EmbeddingFile:
    """The file of this perspective and split; CondmixError says what is wrong with it."""
    arrays, facts = _read(path)
    missing = [name for name in ("vectors", "ids") if name not in arrays]
    missing += [name for name in FACTS if not facts.get(name)]
    if missing:
        raise CondmixError(f"{path} lacks {', '.join(missing)}: docs/embeddings.md says what it must hold")
    for name, expected in (("perspective", perspective), ("split", split)):
        if facts[name] != expected:
            raise CondmixError(f"{path} is of {name} {facts[name]}, but the profile's embed.imports says {expected}")
    if facts["of"] not in OF:
        raise CondmixError(f'{path}: of is "{facts["of"]}", but vectors are made of {", ".join(OF)}')
    vectors, ids = arrays["vectors"], arrays["ids"]
    if vectors.ndim != 2 or 0 in vectors.shape or vectors.dtype.kind != "f":
        raise CondmixError(f"{path}: vectors must be floats (N, D), not {vectors.dtype} {vectors.shape}")
    if ids.shape != (len(vectors),) or ids.dtype.kind not in "iu":
        raise CondmixError(f"{path}: ids must be {len(vectors)} integers, one per vector, not {ids.dtype} {ids.shape}")
    different, counts = np.unique(ids, return_counts=True)
    if len(different) < len(ids):
        raise CondmixError(f"{path} has several vectors of picture {different[counts > 1][0]}")
    return EmbeddingFile(path, vectors.astype(np.float32), ids.astype(np.int64), facts["encoder"], facts["of"])


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and facts: of .safetensors the tensors and metadata, of .npz the arrays and the strings."""
    if path.suffix == ".safetensors":
        tensors, facts = read_tensors(path, REMEDY)
        # numpy has no bfloat16 and no 8-bit floats
        floats = {n: t.float() if t.is_floating_point() and t.dtype not in KEPT else t for n, t in tensors.items()}
        return {name: tensor.numpy() for name, tensor in floats.items()}, facts
    if path.suffix == ".npz":
        arrays = read_arrays(path, REMEDY)
        return arrays, {name: str(array) for name, array in arrays.items() if array.dtype.kind == "U"}
    raise CondmixError(f"{path}: embeddings are imported from .safetensors or .npz files")
