"""Stage: pictures, captions and labels -> one cache of vectors per split and perspective.

A cache whose key is already right is left alone, so only what changed is encoded again. What is encoded is cut into
shards, always the same ones, that any number of processes share. A finished shard is a file, so a killed run goes on
from there; batches stay inside a shard, so that neither kills nor processes change a vector. Vectors that someone
else computed (`embed.imports`) are put into the data set's order and become caches like the others.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, find_executable_batch_size
from torch import Tensor
from tqdm import tqdm

from condmix import CondmixError, pipeline
from condmix.data.captions import one_text, read_captions, read_generated
from condmix.data.embeddings import (
    REMEDY,
    cache_key,
    centre_of,
    cut_facts,
    cut_sentence,
    read_cache,
    read_centre,
    read_metadata,
    write_cache,
)
from condmix.data.imported import read_splits
from condmix.files.artifacts import read_checked_tensors, require, write_checked_tensors
from condmix.files.atomic import remove_folder
from condmix.runtime.cores import cores
from condmix.runtime.precision import bf16
from condmix.runtime.prefetch import prefetch
from condmix.runtime.processes import is_main, join_group, together
from condmix.settings.load import Params, plugin
from condmix.settings.perspectives import parse

SPLITS = ("train", "test")
OF = {"images": "image", "captions": "caption", "labels": "class"}  # what vectors are made of, by what is read
FEATURES = "features"  # the tensor of a shard
SHARD = 4096  # items between two writes, which is what a kill can cost each process
BATCH = {"cpu": 256, "cuda": 1024}  # where `auto` begins
PROBE = 64  # images whose decoded pixels enter the data hash, so that a changed decoder is noticed
TRIAL = 64  # items whose time gives the estimate


@dataclass(frozen=True)
class Source:
    """What an encoder may read of one split: N images, their captions and their labels."""

    dataset: Any
    split: str
    count: int
    captions: list[list[str]]
    labels: np.ndarray  # (N,) int64, -1 unknown
    images_hash: str


@dataclass(frozen=True, eq=False)
class Column:
    """One perspective of one split: present (N,) tells which of its images have it, `item` which item each of those is.

    The items are what is encoded, equal captions once: read(rows) yields them in order, pictures as their decoders.
    """

    perspective: str
    present: np.ndarray
    data_hash: str
    item: np.ndarray  # (present.sum(),) int64, in 0..count-1
    count: int
    read: Callable[[slice], Iterable[Any]]


@dataclass(frozen=True, eq=False)
class Job:
    """A cache to be made: of a column, by an encoder, through the shards in `folder`."""

    path: Path
    key: dict[str, str]
    encoder: Any
    column: Column
    folder: Path
    centred: bool = False

    @property
    def what(self) -> str:
        """The split and the perspective, for messages."""
        return f"{self.key['split']} {self.column.perspective}"

    @property
    def shards(self) -> list[tuple[Path, slice]]:
        """Each shard's file and its items. The last one's slice is open, so that a surplus of pictures shows."""
        starts = range(0, self.column.count, SHARD)
        stops = [*starts[1:], None] if starts else []
        pairs = enumerate(zip(starts, stops, strict=True))
        return [(self.folder / f"{number:05d}.safetensors", slice(*rows)) for number, rows in pairs]


@dataclass(frozen=True)
class Work:
    """How a process encodes: the batch size it begins with, threads that decode, whether like lengths go together."""

    batch_size: int
    threads: int
    length_buckets: bool


def main(params: Params) -> None:
    """Write data/<profile>/embeddings/<split>/<perspective>.safetensors and delete those no longer made."""
    read = None
    if is_main():
        read = _hash([pipeline.tree_sha256(params.paths.archives), pipeline.reader_sha256(params.data.dataset)])
    together(params.embed.processes, run, params, read)


def run(params: Params, read: str | None) -> None:
    """In each process: encode a share of the shards. The first one then writes the caches.

    The first one knows `read`, a hash of the archives and of the code that reads them.
    """
    paths, settings = params.paths, params.embed
    state = join_group()
    (read,) = broadcast_object_list([read])
    dataset = plugin("datasets", params.data.dataset)(paths.archives, params.data.world)
    sources = [open_source(dataset, split, paths.captions, read) for split in SPLITS]
    # Both splits get the same perspectives, even where one of them has no second caption or no label.
    longest = max((len(texts) for source in sources for texts in source.captions), default=0)
    numbers = min(settings.captions, longest)
    to_encode = list(encoders_and_columns(params, dataset.class_names, sources, numbers, str(state.device)))
    of_training = {column.perspective: column.data_hash for split, _, column in to_encode if split == "train"}
    scratch = paths.partial / "embeddings"
    jobs = [
        make_job(paths.embeddings, scratch, encoder, column, split, of_training if settings.centre else None)
        for split, encoder, column in to_encode
    ]
    todo = [job for job in jobs if not _is_current(job.path, job.key)]
    size = BATCH[state.device.type] if settings.batch_size == "auto" else settings.batch_size
    work = Work(size, max(1, cores() // state.num_processes), settings.length_buckets)
    made = {job.path for job in jobs}
    if state.is_main_process:
        for perspective in dict.fromkeys(one.perspective for one in settings.imports):
            files: dict[str, Any] = {one.split: one for one in settings.imports if one.perspective == perspective}
            made.update(import_perspective(perspective, files, sources, numbers, paths.embeddings, settings.centre))
        for path in sorted({job.path for job in jobs} - {job.path for job in todo}):
            print(f"{path}: up to date")
        if todo:
            announce(todo, work, state.num_processes)
    encode_share(todo, work, state.process_index, state.num_processes)
    state.wait_for_everyone()
    if not state.is_main_process:
        return
    for job in todo:
        join(job)
    for job in jobs:
        if sentence := cut_sentence(read_metadata(job.path)):
            print(f"{job.what}: {sentence}")
    for path in paths.embeddings.glob("*/*"):
        if path not in made:
            path.unlink()
    remove_folder(scratch)


def encoders_and_columns(
    params: Params, class_names: Sequence[str], sources: Sequence[Source], numbers: int, device: str
) -> Iterator[tuple[str, Any, Column]]:
    """(split, encoder, column) of every cache but the imported ones; captions are read up to the `numbers`-th."""
    joined = params.embed.joined
    encoders = [
        encoder for name in params.embed.encoders for encoder in open_encoders(name, params, class_names, device)
    ]
    if all((source.labels < 0).all() for source in sources):
        encoders = [encoder for encoder in encoders if encoder.reads != "labels"]
    for source in sources:
        for encoder in encoders:
            for column in columns(encoder, source, numbers, joined):
                yield source.split, encoder, column
    if params.generated is not None:
        (encoder,) = open_encoders("clip_text", params, class_names, device)
        for split, column in generated_columns(params.paths.generated, sources, joined):
            yield split, encoder, column


def open_encoders(name: str, params: Params, class_names: Sequence[str], device: str) -> list[Any]:
    """The encoder of this name, with the section of `embed` that it asks for; of a section of several, one for each."""
    kind = plugin("encoders", name)
    section = getattr(kind, "section", None)
    settings = None if section is None else getattr(params.embed, section)
    if settings is None:
        options: list[dict[str, Any]] = [{}]
    elif isinstance(settings, dict):
        options = [{"name": own, "settings": one} for own, one in settings.items()]
    else:
        options = [{"settings": settings}]
    encoders = [kind.open(params.paths.clip, class_names, device, **one) for one in options]
    if bf16(params.embed.precision):
        for encoder in encoders:
            encoder.use_bf16()
    return encoders


def open_source(dataset: Any, split: str, captions_folder: Path, read: str) -> Source:
    """Everything of a split that is small, and hashes of what is not."""
    ids = dataset.ids(split)
    captions = read_captions(captions_folder, split)
    _check_rows(captions_folder, split, captions, len(ids), "captions")
    labels = dataset.labels(split)
    if labels is None:
        labels = np.full(len(ids), -1)
    return Source(dataset, split, len(ids), captions, labels, images_hash(dataset, split, read))


def _check_rows(folder: Path, split: str, captions: Sequence[Any], count: int, stage: str) -> None:
    if len(captions) != count:
        raise CondmixError(
            f"{folder / split}.json has captions for {len(captions)} images, "
            f"but the split {split} has {count}: make them again (dvc repro {stage})"
        )


def columns(encoder: Any, source: Source, numbers: int, joined: Sequence[int] = ()) -> Iterator[Column]:
    """The perspectives that an encoder makes of a split: one, or those of `text_columns`."""
    if encoder.reads == "images":
        everything = np.ones(source.count, dtype=bool)
        read = partial(source.dataset.decoders, source.split)
        yield Column(encoder.perspective, everything, source.images_hash, np.arange(source.count), source.count, read)
    elif encoder.reads == "labels":
        known = source.labels >= 0
        labels = source.labels[known]
        hashed = _hash(source.labels.tolist())
        yield Column(encoder.perspective, known, hashed, np.arange(len(labels)), len(labels), labels.__getitem__)
    else:
        yield from text_columns(encoder.perspective, source.captions, numbers, joined)


def text_columns(
    perspective: str, captions: Sequence[Sequence[str]], numbers: int, joined: Sequence[int] = ()
) -> Iterator[Column]:
    """One perspective per caption number 1..numbers, named with it in the place of "{k}".

    And, for each k of `joined` up to that, one of the first k captions as one text, with "joined_k" in this place.
    """
    alone = {str(k): lambda own, k=k: own[k - 1] for k in range(1, numbers + 1)}
    together = {f"joined_{k}": lambda own, k=k: one_text(own[:k]) for k in joined if k <= numbers}
    for name, text_of in (alone | together).items():
        k = int(name.rpartition("_")[2])
        texts = [text_of(own) if len(own) >= k else "" for own in captions]
        present = np.array([bool(text) for text in texts], dtype=bool)
        place = {text: i for i, text in enumerate(dict.fromkeys(text for text in texts if text))}
        item = np.array([place[text] for text in texts if text], dtype=np.int64)
        yield Column(perspective.format(k=name), present, _hash(texts), item, len(place), list(place).__getitem__)


def generated_columns(folder: Path, sources: Sequence[Source], joined: Sequence[int]) -> Iterator[tuple[str, Column]]:
    """(split, column) of what a captioner wrote; both splits have the same perspectives."""
    written = {source.split: read_generated(folder, source.split) for source in sources}
    longest = max((len(texts) for rows in written.values() for texts in rows), default=0)
    for source in sources:
        _check_rows(folder, source.split, written[source.split], source.count, "generate_captions")
        for column in text_columns("generated_{k}", written[source.split], longest, joined):
            yield source.split, column


def make_job(
    folder: Path, scratch: Path, encoder: Any, column: Column, split: str, of_training: Mapping[str, str] | None = None
) -> Job:
    """How a column becomes its cache in `folder`; the name of its shards' folder in `scratch` is a hash of the key.

    Centred by the training data whose hash `of_training` has; one-hot classes never are.
    """
    centred = of_training is not None and encoder.reads != "labels"
    preprocessing = encoder.preprocessing
    if of_training is not None and centred:
        preprocessing = minus_mean(preprocessing, of_training[column.perspective])
    key = cache_key(
        column.perspective,
        split,
        (encoder.id, preprocessing),
        column.data_hash,
        len(column.present),
        code_sha256(f"{type(encoder).__module__.removeprefix('condmix.').replace('.', '/')}.py"),
    )
    return Job(
        folder / split / f"{column.perspective}.safetensors", key, encoder, column, scratch / _hash(key)[:16], centred
    )


def minus_mean(preprocessing: str, of_training: str) -> str:
    """The preprocessing of vectors that are centred by data with this hash."""
    return f"{preprocessing}, minus the mean of {of_training}"


def code_sha256(module: str) -> str:
    """Hash of the code that makes a cache: this stage's and that of one encoder's module, but not of the others'."""
    neutral = [*pipeline.NEUTRAL, *pipeline.NEUTRAL_IN["embed"]]
    own = pipeline.closure("stages/embed.py", [*neutral, "encoders/*"])
    return pipeline.code_sha256(sorted({*own, *pipeline.closure(module, neutral)}))


def announce(jobs: Sequence[Job], work: Work, processes: int) -> None:
    """Say how much there is to encode, how large it becomes, what an earlier run has left, and how long it may take.

    The time is that of the first few items of each encoder, which decode and pass through the network for nothing.
    """
    seconds = 0.0
    counts: Counter[str] = Counter()
    for encoder in dict.fromkeys(job.encoder for job in jobs):
        group = [job for job in jobs if job.encoder is encoder and job.column.count]
        left = sum(_length(job, rows) for job in group for path, rows in job.shards if not _is_whole(job, path, rows))
        counts[encoder.reads] += sum(job.column.count for job in group)
        if left:
            start = time.monotonic()
            tried = slice(0, min(TRIAL, work.batch_size))
            encode_shard(group[0], tried, work.batch_size, work)
            seconds += left / _length(group[0], tried) * (time.monotonic() - start)
    size = sum(2 * len(job.column.present) * job.encoder.dim for job in jobs) / 2**20  # fp16
    done = [_is_whole(job, path, rows) for job in jobs for path, rows in job.shards]
    items = " and ".join(f"{count:,} {reads}" for reads, count in counts.items())
    print(
        f"embed: {items} into {len(jobs)} caches of {size:,.1f} MiB; {sum(done)} of {len(done)} shards are done, "
        f"the others take about {timedelta(seconds=round(seconds / processes))}",
        flush=True,
    )


def encode_share(jobs: Sequence[Job], work: Work, rank: int, processes: int) -> None:
    """Encode this process's share of the shards, but for those that are there already."""
    shards = [(job, path, rows) for job in jobs for path, rows in job.shards]
    for job, group in groupby(shards[rank::processes], key=lambda shard: shard[0]):
        encode_shards(job, [(path, rows) for _, path, rows in group], work, shown=rank == 0)


def encode_shards(job: Job, shards: Sequence[tuple[Path, slice]], work: Work, shown: bool) -> None:
    """Write the shards that are not there. Where memory ends, the one at work begins again with half the batch size.

    That changes the vectors by rounding at most.
    """
    smaller = (work.batch_size >> halvings for halvings in count(1))
    total = sum(_length(job, rows) for _, rows in shards)

    @find_executable_batch_size(  # type: ignore[untyped-decorator]  # accelerate has no types
        starting_batch_size=work.batch_size, reduce_batch_size_fn=lambda: next(smaller)
    )
    def encode(batch_size: int) -> None:
        left = [(path, rows) for path, rows in shards if not _is_whole(job, path, rows)]
        progress.n = total - sum(_length(job, rows) for _, rows in left)
        for path, rows in left:
            vectors = encode_shard(job, rows, batch_size, work, progress.update)
            write_checked_tensors(path, {FEATURES: torch.from_numpy(vectors)}, {})

    with tqdm(total=total, desc=f"embed {job.what}", unit="item", disable=not shown) as progress:
        try:
            encode()
        except RuntimeError as error:
            if "No executable batch size" not in str(error):
                raise
            raise CondmixError(
                f"{job.what}: the memory of {PartialState().device} does not suffice for one item at a time: "
                "free some, or take a smaller encoder or embed.precision: bf16"
            ) from error


def encode_shard(
    job: Job, rows: slice, batch_size: int, work: Work, progress: Callable[[int], Any] = lambda _: None
) -> np.ndarray:
    """Features (n, D) float32 of the column's items of these rows, in their order."""
    what, encoder, column, expected = job.what, job.encoder, job.column, _length(job, rows)
    order = np.arange(expected)
    items: Any = column.read(rows)
    if encoder.reads == "images":
        items = prefetch(lambda decoder: encoder.prepare(decoder()), items, work.threads, 2 * batch_size)
    elif encoder.reads == "captions" and work.length_buckets:
        order = np.array(sorted(range(expected), key=lambda i: -len(items[i])))  # if memory ends, then at the beginning
        items = [items[i] for i in order]
    features = np.empty((expected, encoder.dim), dtype=np.float32)
    done = 0
    for batch in _batches(items, batch_size):
        if done + len(batch) > expected:
            raise CondmixError(f"{what}: the data set gave more than the {column.count} {encoder.reads} it announced")
        features[order[done : done + len(batch)]] = encoder.network(batch).cpu().numpy()
        done += len(batch)
        progress(len(batch))
    if done < expected:
        given = rows.start + done
        raise CondmixError(f"{what}: the data set gave {given} {encoder.reads}, but announced {column.count}")
    return features


def read_shard(job: Job, path: Path, rows: slice) -> np.ndarray:
    """The features (n, D) float32 of a shard; CondmixError where it is missing or damaged."""
    tensors, _ = read_checked_tensors(path, REMEDY)
    features: Tensor = require(tensors, FEATURES, torch.float32, (_length(job, rows), job.encoder.dim), path, REMEDY)
    return features.numpy()


def _is_whole(job: Job, path: Path, rows: slice) -> bool:
    """Whether an earlier run has left the shard; a damaged one is made again."""
    if not path.exists():
        return False
    try:
        read_shard(job, path, rows)
    except CondmixError:
        return False
    return True


def join(job: Job) -> None:
    """Write a column's cache from its shards."""
    column, encoder = job.column, job.encoder
    vectors = np.zeros((len(column.present), encoder.dim), dtype=np.float32)
    if job.shards:
        features = np.concatenate([read_shard(job, path, rows) for path, rows in job.shards])
        vectors[column.present] = features[column.item]
    kind, of = parse(column.perspective).kind, OF[encoder.reads]
    named = kind in (of, "generated")  # after what it was made from
    facts = {} if named else {"of": of}
    if encoder.reads == "captions":
        texts = column.read(slice(None))
        facts |= cut_facts([max(0, tokens - encoder.limit) for tokens in encoder.tokens(texts)], encoder.limit)
    write_cache(job.path, vectors, column.present, job.key, facts, centre_for(job, vectors) if job.centred else None)


def centre_for(job: Job, vectors: np.ndarray) -> Tensor | None:
    """Of the training split's vectors; its caches are written before those of the other splits."""
    if job.key["split"] == "train":
        return centre_of(vectors[job.column.present])
    return read_centre(job.path.parents[1] / "train" / job.path.name)


def import_perspective(
    perspective: str, files: Mapping[str, Any], sources: Sequence[Source], numbers: int, folder: Path, centre: bool
) -> Iterator[Path]:
    """Bring the caches of an imported perspective up to date, from one file per split; yields their paths.

    Pictures that a file leaves out lack the perspective, and so do all pictures of a split that has no file.
    `numbers` is how many captions are in use: vectors of captions are of one of these.
    """
    found = read_splits({split: one.verified("embed.imports") for split, one in files.items()}, perspective, numbers)
    first = next(iter(found.values()))
    preprocessing, mean = "imported", None
    if centre and "train" in found:
        preprocessing, mean = minus_mean(preprocessing, files["train"].sha256), centre_of(found["train"].vectors)
    for source in sources:
        path = folder / source.split / f"{perspective}.safetensors"
        yield path
        ids = [int(i) for i in source.dataset.ids(source.split)]
        data = _hash([ids, files[source.split].sha256 if source.split in files else None])
        made_by, code = (first.encoder, preprocessing), code_sha256("data/imported.py")
        key = cache_key(perspective, source.split, made_by, data, source.count, code)
        if path.exists() and _is_current(path, key):
            print(f"{path}: up to date")
            continue
        if source.split in found:
            vectors, present = found[source.split].ordered(ids)
        else:
            vectors, present = np.zeros((source.count, first.width), np.float32), np.zeros(source.count, dtype=bool)
        write_cache(path, vectors, present, key, {"of": first.of}, mean)
        print(f"{path}: {present.sum()} of {source.count} pictures have imported vectors")


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _length(job: Job, rows: slice) -> int:
    return len(range(job.column.count)[rows])


def _is_current(path: Path, key: dict[str, str]) -> bool:
    try:
        read_cache(path, key)
    except CondmixError:  # another key, or damaged: either way it is made again
        return False
    return True


def images_hash(dataset: Any, split: str, read: str) -> str:
    """Hash of a split's pictures: what is `read` and how, the chosen ids, the pixels of the first few as decoded here.

    The pixels tell of decoders that are not our code.
    """
    digest = hashlib.sha256(_hash([read, [int(i) for i in dataset.ids(split)]]).encode())
    for image in islice(dataset.images(split), PROBE):
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
