"""Stage: pictures, captions and labels -> one cache of vectors per split and perspective.

A cache whose key is already right is left alone, so only what changed is encoded again. Vectors that someone else
computed (`embed.imports`) are put into the data set's order and become caches like the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from condmix import CondmixError
from condmix.cache import cache_key, read_cache, write_cache
from condmix.captionfile import read_captions, read_generated
from condmix.config import plugin
from condmix.embeddingfile import read_embeddings
from condmix.perspectives import parse

SPLITS = ("train", "test")
OF = {"images": "image", "captions": "caption", "labels": "class"}  # what vectors are made of, by what is read
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
    archives = archives_hash(paths.archives)
    sources = [open_source(dataset, split, paths.captions, archives) for split in SPLITS]
    # Both splits get the same perspectives, even where one of them has no second caption or no label.
    longest = max((len(texts) for source in sources for texts in source.captions), default=0)
    numbers = min(params.embed.captions, longest)
    made = set()
    for perspective in dict.fromkeys(one.perspective for one in params.embed.imports):
        files = {one.split: one for one in params.embed.imports if one.perspective == perspective}
        made.update(import_perspective(perspective, files, sources, numbers, paths.embeddings))
    encoders = [open_encoder(name, params, dataset.class_names, device) for name in params.embed.encoders]
    if all((source.labels < 0).all() for source in sources):
        encoders = [encoder for encoder in encoders if encoder.reads != "labels"]
    for source in sources:
        for encoder in encoders:
            for column in columns(encoder, source, numbers):
                path = paths.embeddings / source.split / f"{column.perspective}.safetensors"
                embed_column(path, encoder, column, source.split)
                made.add(path)
    if params.generated is not None:
        encoder = open_encoder("clip_text", params, dataset.class_names, device)
        written = {source.split: read_generated(paths.generated, source.split) for source in sources}
        longest = max((len(texts) for rows in written.values() for texts in rows), default=0)
        for source in sources:
            _check_rows(paths.generated, source.split, written[source.split], source.count, "generate_captions")
            for column in text_columns("generated_{k}", written[source.split], longest):
                path = paths.embeddings / source.split / f"{column.perspective}.safetensors"
                embed_column(path, encoder, column, source.split, of="generated")
                made.add(path)
    for path in paths.embeddings.glob("*/*"):
        if path not in made:
            path.unlink()


def open_encoder(name: str, params: Any, class_names: Sequence[str], device: str) -> Any:
    """The encoder of this name, with the section of `embed` that it asks for, if it asks for one."""
    kind = plugin("encoders", name)
    section = getattr(kind, "section", None)
    settings = {} if section is None else {"settings": getattr(params.embed, section)}
    return kind.open(params.paths.clip, class_names, device, **settings)


def open_source(dataset: Any, split: str, captions_folder: Path, archives: str) -> Source:
    """Everything of a split that is small, and hashes of what is not."""
    ids = dataset.ids(split)
    captions = read_captions(captions_folder, split)
    _check_rows(captions_folder, split, captions, len(ids), "captions")
    labels = dataset.labels(split)
    if labels is None:
        labels = np.full(len(ids), -1)
    return Source(dataset, split, len(ids), captions, labels, images_hash(dataset, split, archives))


def _check_rows(folder: Path, split: str, captions: Sequence[Any], count: int, stage: str) -> None:
    if len(captions) != count:
        raise CondmixError(
            f"{folder / split}.json has captions for {len(captions)} images, "
            f"but the split {split} has {count}: make them again (dvc repro {stage})"
        )


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
        yield from text_columns(encoder.perspective, source.captions, numbers)


def text_columns(perspective: str, captions: Sequence[Sequence[str]], numbers: int) -> Iterator[Column]:
    """One perspective per caption number 1..numbers, named with it in the place of "{k}"."""
    for k in range(1, numbers + 1):
        texts = [texts[k - 1] if len(texts) >= k else "" for texts in captions]
        present = np.array([bool(text) for text in texts], dtype=bool)
        items = [text for text in texts if text]
        yield Column(perspective.format(k=k), present, _hash(texts), items)


def embed_column(path: Path, encoder: Any, column: Column, split: str, of: str | None = None) -> None:
    """Bring one cache up to date; `of` is what its vectors are made of, where the encoder does not say it."""
    count = len(column.present)
    key = cache_key(column.perspective, split, encoder.id, encoder.preprocessing, column.data_hash, count)
    if path.exists() and _is_current(path, key):
        print(f"{path}: up to date")
        return
    vectors = np.zeros((count, encoder.dim), dtype=np.float32)
    encode = _encode_once if encoder.reads == "captions" else _encode_all
    vectors[column.present] = encode(encoder, column.items, column.present.sum(), f"{split} {column.perspective}")
    of = of or OF[encoder.reads]
    write_cache(path, vectors, column.present, key, None if parse(column.perspective).kind == of else of)


def import_perspective(
    perspective: str, files: Mapping[str, Any], sources: Sequence[Source], numbers: int, folder: Path
) -> Iterator[Path]:
    """Bring the caches of an imported perspective up to date, from one file per split; yields their paths.

    Pictures that a file leaves out lack the perspective, and so do all pictures of a split that has no file.
    `numbers` is how many captions are in use: vectors of captions are of one of these.
    """
    found = {split: read_embeddings(one.path, one.sha256, perspective, split) for split, one in files.items()}
    first = next(iter(found.values()))
    for field in ("encoder", "of", "width"):
        values = {split: getattr(one, field) for split, one in found.items()}
        if len(set(values.values())) > 1:
            raise CondmixError(
                f"embed.imports: the files of {perspective} differ in {field}, {values['train']} in training and "
                f"{values['test']} in the test split; both must come from one encoder"
            )
    if first.of == "caption" and parse(perspective).number > numbers:
        raise CondmixError(
            f"embed.imports: {perspective} is of each picture's caption number {parse(perspective).number}, "
            f"but {numbers} are in use"
        )
    for source in sources:
        path = folder / source.split / f"{perspective}.safetensors"
        yield path
        ids = [int(i) for i in source.dataset.ids(source.split)]
        data = _hash([ids, files[source.split].sha256 if source.split in files else None])
        key = cache_key(perspective, source.split, first.encoder, "imported", data, source.count)
        if path.exists() and _is_current(path, key):
            print(f"{path}: up to date")
            continue
        if source.split in found:
            vectors, present = found[source.split].ordered(ids)
        else:
            vectors, present = np.zeros((source.count, first.width), np.float32), np.zeros(source.count, dtype=bool)
        write_cache(path, vectors, present, key, first.of)
        print(f"{path}: {present.sum()} of {source.count} pictures have imported vectors")


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
