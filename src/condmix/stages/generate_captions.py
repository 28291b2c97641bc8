"""Stage: pictures -> generated/<split>.json, what a captioner says of them, as far as CLIP agrees.

The file has "captions" and "sources" as those of the stage `captions`, in the same order of pictures, and besides

    captioner    what wrote them: name, model, revision, the weights' sha256, and how it was sampled
    provenance   for each caption its prompt, its seed and its similarity to the picture (cosine of CLIP's vectors)
    claims       for each caption the value that it names of each attribute, -1 where none; null where not known

Captions longer than CLIP reads are split into sentences, repetitions are dropped, and of what is similar enough a
picture keeps the first K. What is done is kept in .checkpoints after every `shard` pictures, so that a killed run goes
on where it was; another K or another threshold has nothing written anew.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from typing_extensions import TypedDict

from condmix import CondmixError, pipeline
from condmix.data.captions import read_captions, tidy
from condmix.datasets import SPLITS
from condmix.encoders.clip_image import ClipImage
from condmix.encoders.clip_text import ClipText
from condmix.files.artifacts import read_checked_json, write_checked_json
from condmix.files.atomic import replacing_folder, write_json, write_text
from condmix.runtime.seeds import derive
from condmix.settings.load import Params, plugin
from condmix.settings.schema import GeneratedSettings
from condmix.tracking.runs import environment, project_root
from condmix.training.checkpoint import Checkpoint, machine

SENTENCE = re.compile(r"(?<=[.!?])\s+")
KEPT_BY = {"captions", "min_similarity", "better_than"}  # settings that choose among what was written
PictureCaptions = list[dict[str, Any]]  # of one picture: a Caption for each of its captions


class Caption(TypedDict):
    """What a captioner wrote, and how well it fits its picture."""

    text: str
    prompt: str | None
    seed: int
    similarity: float


class Shard(TypedDict):
    """What is kept of some pictures: see `Writer.shard`."""

    rows: list[list[Caption]]
    mismatched: list[float]
    seconds: float


def main(params: Params) -> None:
    """Write data/<profile>/generated/{train,test}.json and metrics/generated.json."""
    paths, settings = params.paths, params.generated
    if settings is None:
        for split in SPLITS:
            nothing: list[PictureCaptions] = [[] for _ in read_captions(paths.captions, split)]
            write_generated(paths.generated / f"{split}.json", nothing, None, None)
        write_json(paths.metrics / "generated.json", {"captions": 0})
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = plugin("datasets", params.data.dataset)(paths.archives, params.data.world)
    clip_image, clip_text = (kind.open(paths.clip, dataset.class_names, device) for kind in (ClipImage, ClipText))
    work = Checkpoint(project_root(), f"captions-{key(params, device)}")
    with work.lock():
        captioner = open_captioner(params, dataset, work.folder / "captioner", device)
        writer = Writer(settings, captioner, clip_image, clip_text)
        folder = work.folder / pipeline.digest(captioner.facts | {"clip": clip_image.id})[:16]
        shards = {split: list(writer.shards(dataset, split, folder)) for split in SPLITS}

    limit = threshold(settings, [x for shard in shards["train"] for x in shard["mismatched"]])
    sampled = settings.model_dump(include={"top_p", "temperature", "max_tokens", "batch_size", "precision"})
    wrote = {"captioner": settings.captioner, **captioner.facts, **sampled, "clip": clip_image.id}
    measured = {}
    for split in SPLITS:
        rows = [row for shard in shards[split] for row in shard["rows"]]
        kept = [keep(row, limit, settings.captions) for row in rows]
        claims = claims_of(dataset, kept)
        write_generated(paths.generated / f"{split}.json", kept, wrote, claims)
        measured[split] = measure(rows, kept, shards[split]) | accuracy(dataset, split, claims)
    if captioner.trained:
        with replacing_folder(paths.generated / "captioner") as part:
            shutil.copytree(work.folder / "captioner", part, dirs_exist_ok=True)
    made = {"threshold": limit, **measured, "environment": environment(settings.precision)}
    write_json(paths.metrics / "generated.json", wrote | made)


def key(params: Params, device: str) -> str:
    """What the captioner and its captions depend on, but for the weights that it loads."""
    chosen: Any = params.generated  # main has found it to be there
    learnt = [params.paths.captions / "train.json"] if chosen.training else []
    facts = machine(device, chosen.precision) | {"samples": samples(chosen)}
    facts |= {"reader": pipeline.reader_sha256(params.data.dataset), "world": params.data.world}
    code = pipeline.stage_code("generate_captions")
    return pipeline.key(code, chosen, [params.paths.archives, *learnt], facts, {*KEPT_BY, "samples"})


def open_captioner(params: Params, dataset: Any, folder: Path, device: str) -> Any:
    """The captioner of the settings; one that is trained here is trained first, if `folder` does not hold it whole."""
    settings: Any = params.generated  # main has found it to be there
    kind = plugin("captioners", settings.captioner)
    checksum = folder.with_name(f"{folder.name}.sha256")
    if kind.trained and not _is_whole(folder, checksum):
        captions = [tidy(texts) for texts in read_captions(params.paths.captions, "train")]
        captioned = [bool(texts) for texts in captions]
        if not any(captioned):
            raise CondmixError(f"profile {params.profile} has no captions to train {settings.captioner} on")
        pictures = list(compress(dataset.images("train"), captioned))
        with replacing_folder(folder) as part:
            kind.train(settings, pictures, list(compress(captions, captioned)), part, device)
        write_text(checksum, pipeline.tree_sha256(folder))
    return kind.open(settings, folder, device)


def _is_whole(folder: Path, checksum: Path) -> bool:
    """Whether a trained captioner is as it was written; a damaged one is trained again."""
    if not folder.is_dir() or not checksum.is_file():
        return False
    return checksum.read_bytes() == pipeline.tree_sha256(folder).encode()


def samples(settings: GeneratedSettings) -> int:
    """How many captions are drawn for a picture."""
    return settings.samples or settings.captions


class Writer:
    """A captioner and the CLIP that says how well its captions fit, at work on a split."""

    def __init__(self, settings: GeneratedSettings, captioner: Any, clip_image: Any, clip_text: Any):
        self.settings, self.captioner = settings, captioner
        self.clip_image, self.clip_text = clip_image, clip_text
        self.prompts = settings.prompts or captioner.prompts

    def shards(self, dataset: Any, split: str, folder: Path) -> Iterator[dict[str, Any]]:
        """What was written of each `shard` pictures in turn; those that lie in `folder` are read and not written."""
        count, size = len(dataset.ids(split)), self.settings.shard
        pictures = dataset.images(split)
        with tqdm(total=count, desc=f"caption {split}", unit="img") as progress:
            for first in range(0, count, size):
                path = folder / f"{split}-{first:09}.json"
                these = islice(pictures, min(size, count - first))
                shard = read_shard(path, min(size, count - first))
                if shard is not None:
                    progress.update(sum(1 for _ in these))
                else:
                    shard = self.shard(these, split, first, progress)
                    write_checked_json(path, shard)
                yield shard

    def shard(self, pictures: Iterator[np.ndarray], split: str, first: int, progress: tqdm) -> dict[str, Any]:
        """{"rows": each picture's captions, "mismatched": similarities to another picture's caption, "seconds"}."""
        started = time.monotonic()
        rows: list[PictureCaptions] = []
        mismatched: list[float] = []
        while batch := list(islice(pictures, self.settings.batch_size)):
            drawn = self.draw(batch, split, first + len(rows))
            compared, others = self.compare(batch, drawn)
            rows += compared
            mismatched += others
            progress.update(len(batch))
        return {"rows": rows, "mismatched": mismatched, "seconds": time.monotonic() - started}

    def draw(self, batch: Sequence[np.ndarray], split: str, first: int) -> list[PictureCaptions]:
        """All captions of a batch, the first of which is picture number `first`, in pieces that CLIP reads whole."""
        seen = self.captioner.see(batch)
        rows: list[dict[str, dict[str, Any]]] = [{} for _ in batch]  # by text, so that nothing is said twice
        for i in range(samples(self.settings)):
            prompt, seed = self.prompts[i % len(self.prompts)], derive(self.settings.seed, split, first, i)
            for row, text in zip(rows, self.captioner.caption(seen, prompt, seed), strict=True):
                for piece in tidy([text] if self.fits(text) else SENTENCE.split(text)):
                    row.setdefault(piece, {"text": piece, "prompt": prompt, "seed": seed})
        return [list(row.values()) for row in rows]

    def fits(self, text: str) -> bool:
        """Whether CLIP's text tower reads all of it."""
        tokenizer: Any = self.clip_text.clip.tokenizer
        if hasattr(tokenizer, "encode"):  # CLIP's own, which counts neither the begin nor the end
            return len(tokenizer.encode(text)) + 2 <= int(tokenizer.context_length)
        return len(tokenizer.tokenizer(text).input_ids) <= int(tokenizer.context_length)

    def compare(
        self, batch: Sequence[np.ndarray], rows: list[PictureCaptions]
    ) -> tuple[list[PictureCaptions], list[float]]:
        """The rows with each caption's "similarity", and those of the next picture's captions to each picture."""
        captions = [caption for row in rows for caption in row]
        if not captions:
            return rows, []
        images, texts = self.clip_image.encode(batch), self.clip_text.encode([caption["text"] for caption in captions])
        own = torch.tensor([i for i, row in enumerate(rows) for _ in row], device=images.device)
        for caption, similarity in zip(captions, (images[own] * texts).sum(dim=1).tolist(), strict=True):
            caption["similarity"] = round(similarity, 4)
        mismatched = (images[(own + 1) % len(images)] * texts).sum(dim=1).tolist()
        return rows, [round(x, 4) for x in mismatched] if len(images) > 1 else []


def read_shard(path: Path, pictures: int) -> dict[str, Any] | None:
    """What an earlier run has left of so many pictures; None where that is nothing, or damaged."""
    if not path.exists():
        return None
    try:
        shard = read_checked_json(path, Shard, "dvc repro generate_captions")
    except CondmixError:
        return None
    return shard if len(shard["rows"]) == pictures else None


def threshold(settings: GeneratedSettings, mismatched: Sequence[float]) -> float:
    """The similarity that a caption needs: the higher of the two that the settings name, -1 (all) without any."""
    limits = [-1.0 if settings.min_similarity is None else settings.min_similarity]
    if settings.better_than is not None:
        if not mismatched:
            raise CondmixError(
                "generated.better_than: no caption was compared with another picture of its batch; "
                "generated.batch_size must be 2 or more"
            )
        limits.append(float(np.quantile(mismatched, settings.better_than)))
    return round(max(limits), 4)


def keep(row: PictureCaptions, limit: float, most: int) -> PictureCaptions:
    """The first captions of a picture that are similar enough to it."""
    return [caption for caption in row if caption["similarity"] >= limit][:most]


def claims_of(dataset: Any, kept: list[PictureCaptions]) -> list[list[list[int]]] | None:
    """What each caption claims; None where the data's attributes are not known."""
    if not dataset.attributes:
        return None
    return [[dataset.claims(caption["text"]) for caption in row] for row in kept]


def write_generated(
    path: Path, rows: list[PictureCaptions], captioner: dict[str, Any] | None, claims: list[list[list[int]]] | None
) -> None:
    """Write one split's file, whole or not at all."""
    content = {
        "captions": [[caption["text"] for caption in row] for row in rows],
        "sources": [["generated"] * len(row) for row in rows],
        "captioner": captioner,
        "provenance": [
            [{name: caption[name] for name in ("prompt", "seed", "similarity")} for caption in row] for row in rows
        ],
        "claims": claims,
    }
    write_text(path, json.dumps(content, ensure_ascii=False))


def measure(rows: list[PictureCaptions], kept: list[PictureCaptions], shards: list[dict[str, Any]]) -> dict[str, Any]:
    """How many captions there are, and how similar they are to their own and to another picture."""
    written = [caption["similarity"] for row in rows for caption in row]
    mismatched = [x for shard in shards for x in shard["mismatched"]]
    left = sum(map(len, kept))
    return {
        "written": len(written),
        "captions": left,
        "kept": round(left / len(written), 4) if written else None,
        "pictures": len(rows),
        "pictures_without": sum(not row for row in kept),
        "similarity": round(float(np.mean(written)), 4) if written else None,
        "similarity_mismatched": round(float(np.mean(mismatched)), 4) if mismatched else None,
        "captions_per_second": round(len(written) / sum(shard["seconds"] for shard in shards), 1),
    }


def accuracy(dataset: Any, split: str, claims: list[list[list[int]]] | None) -> dict[str, Any]:
    """For each attribute the share of captions that name it, and of these the share that are right."""
    if claims is None:
        return {}
    values = dataset.attribute_values(split)
    claimed = np.array([claim for row in claims for claim in row]).reshape(-1, values.shape[1])
    truth = np.repeat(values, [len(row) for row in claims], axis=0)
    named = claimed >= 0
    right = {}
    for column, name in enumerate(dataset.attributes):
        ours = named[:, column]
        right[name] = round(float((claimed == truth)[ours, column].mean()), 4) if ours.any() else None
    return {
        "named": {
            name: round(float(named[:, i].mean()), 4) for i, name in enumerate(dataset.attributes) if len(claimed)
        },
        "right": right,
    }
