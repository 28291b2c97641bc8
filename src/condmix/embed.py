"""Stage: pictures, captions and labels -> one cache of vectors per split and perspective.

A cache whose key is already right is left alone, so only what changed is encoded again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from condmix import CondmixError
from condmix.cache import cache_key, read_cache, write_cache
from condmix.captionfile import read_captions
from condmix.config import plugin

SPLITS = ("train", "test")
BATCH = 256
PROBE = 64  # images whose decoded pixels enter the data hash, so that a changed decoder is noticed


@dataclass(frozen=True)
class Source:
    """What an encoder may read of one split: N images, their captions and their labels."""

    dataset: Any
    split: str
    count: int
    captions: list[list[str]]
    labels: np.ndarray  # (N,) int64, -1 unknown
    images_hash: str


@dataclass(frozen=True)
class Column:
    """One perspective of one split: present (N,) tells which images have it, `items` yields theirs in order."""

    perspective: str
    present: np.ndarray
    data_hash: str
    items: Iterable[Any]


def main(params: Any) -> None:
    """Write data/<profile>/embeddings/<split>/<perspective>.safetensors and delete those no longer made."""
    paths = params.paths
    dataset = plugin("datasets", params.data.dataset)(paths.archives, params.data.world)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoders = [
        plugin("encoders", name).open(paths.clip, dataset.class_names, device) for name in params.embed.encoders
    ]
    archives = archives_hash(paths.archives)
    sources = [open_source(dataset, split, paths.captions, archives) for split in SPLITS]
    # Both splits get the same perspectives, even where one of them has no second caption or no label.
    longest = max((len(texts) for source in sources for texts in source.captions), default=0)
    numbers = min(params.embed.captions, longest)
    if all((source.labels < 0).all() for source in sources):
        encoders = [encoder for encoder in encoders if encoder.reads != "labels"]
    made = set()
    for source in sources:
        for encoder in encoders:
            for column in columns(encoder, source, numbers):
                path = paths.embeddings / source.split / f"{column.perspective}.safetensors"
                embed_column(path, encoder, column, source.split)
                made.add(path)
    for path in paths.embeddings.glob("*/*"):
        if path not in made:
            path.unlink()


def open_source(dataset: Any, split: str, captions_folder: Path, archives: str) -> Source:
    """Everything of a split that is small, and hashes of what is not."""
    ids = dataset.ids(split)
    captions = read_captions(captions_folder, split)
    if len(captions) != len(ids):
        raise CondmixError(
            f"{captions_folder / split}.json has captions for {len(captions)} images, "
            f"but the split {split} has {len(ids)}: make them again (dvc repro captions)"
        )
    labels = dataset.labels(split)
    if labels is None:
        labels = np.full(len(ids), -1)
    return Source(dataset, split, len(ids), captions, labels, images_hash(dataset, split, archives))


def columns(encoder: Any, source: Source, numbers: int) -> Iterator[Column]:
    """The perspectives that an encoder makes of a split: one, or one per caption number 1..numbers."""
    if encoder.reads == "images":
        everything = np.ones(source.count, dtype=bool)
        images = source.dataset.images(source.split)
        yield Column(encoder.perspective, everything, source.images_hash, images)
    elif encoder.reads == "labels":
        known = source.labels >= 0
        yield Column(encoder.perspective, known, _hash(source.labels.tolist()), source.labels[known])
    else:
        for k in range(1, numbers + 1):
            texts = [texts[k - 1] if len(texts) >= k else "" for texts in source.captions]
            present = np.array([bool(text) for text in texts], dtype=bool)
            items = [text for text in texts if text]
            yield Column(encoder.perspective.format(k=k), present, _hash(texts), items)


def embed_column(path: Path, encoder: Any, column: Column, split: str) -> None:
    """Bring one cache up to date."""
    count = len(column.present)
    key = cache_key(column.perspective, split, encoder.id, encoder.preprocessing, column.data_hash, count)
    if path.exists() and _is_current(path, key):
        print(f"{path}: up to date")
        return
    vectors = np.zeros((count, encoder.dim), dtype=np.float32)
    encode = _encode_once if encoder.reads == "captions" else _encode_all
    vectors[column.present] = encode(encoder, column.items, column.present.sum(), f"{split} {column.perspective}")
    write_cache(path, vectors, column.present, key)


def _encode_all(encoder: Any, items: Iterable[Any], count: int, what: str) -> np.ndarray:
    """Features (count, D) of a stream of exactly `count` items."""
    features = np.empty((count, encoder.dim), dtype=np.float32)
    done = 0
    with tqdm(total=count, desc=f"embed {what}", unit="item") as progress:
        for batch in _batches(items):
            if done + len(batch) > count:
                raise CondmixError(f"{what}: the data set gave more than the {count} {encoder.reads} it announced")
            features[done : done + len(batch)] = encoder.features(batch).cpu().numpy()
            done += len(batch)
            progress.update(len(batch))
    if done < count:
        raise CondmixError(f"{what}: the data set gave {done} {encoder.reads}, but announced {count}")
    return features


def _encode_once(encoder: Any, texts: Sequence[str], count: int, what: str) -> np.ndarray:
    """Like `_encode_all`, but equal captions (class templates repeat a lot) go through the encoder once."""
    place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    features = _encode_all(encoder, place, len(place), what)
    return features[[place[text] for text in texts]]


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _is_current(path: Path, key: dict[str, str]) -> bool:
    try:
        read_cache(path, key)
    except CondmixError:  # another key, or damaged: either way it is made again
        return False
    return True


def archives_hash(folder: Path) -> str:
    """Hash of every archive's name and content: hashing an archive is far cheaper than decoding it."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def images_hash(dataset: Any, split: str, archives: str) -> str:
    """Hash of a split's pictures: the archives, the chosen ids, and the pixels of the first few as decoded here."""
    digest = hashlib.sha256(_hash([archives, [int(i) for i in dataset.ids(split)]]).encode())
    for image in islice(dataset.images(split), PROBE):
        digest.update(np.ascontiguousarray(image))
    return digest.hexdigest()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
