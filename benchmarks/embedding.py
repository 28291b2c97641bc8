"""Captions and pictures to vectors: our encoders beside the plain open_clip loop, by turns, with the same weights.

    PYTHONPATH=src python benchmarks/embedding.py --model ViT-B-32 --n 512 --captions captions.txt
    PYTHONPATH=src python benchmarks/embedding.py --model ViT-B-32 --n 64 --pictures coco-subset.tar

The plain loop is what open_clip's README shows: tokenise a batch to the full context, or decode and preprocess its
pictures, `encode_text` or `encode_image` in fp32, normalise. Ours is the stage's: equal captions once, batches of like
length, pictures decoded in threads, in fp32 and, with --bf16, in bf16. The weights are random, which does not change
how long they take. Without --captions, those of demo scenes are used, each once; --repeat says how often each occurs,
as class templates do.
"""

import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image

from condmix.clip.folder import save_clip
from condmix.clip.openclip import new_clip
from condmix.datasets._scenes import COMBINATIONS, Dice, values_of
from condmix.datasets._wording import describe
from condmix.encoders.clip_image import ClipImage
from condmix.encoders.clip_text import ClipText
from condmix.files.pictures import decode
from condmix.runtime.prefetch import CORES
from condmix.stages.embed import BATCH, Job, Source, Work, columns, encode_shard

SIZE = BATCH["cpu"]


def demo_captions(count: int) -> list[str]:
    texts: dict[str, None] = {}
    number = 0
    while len(texts) < count:
        dice = Dice(7, 0, number)
        texts |= dict.fromkeys(describe(values_of(dice.below(COMBINATIONS)), dice)[0])
        number += 1
    return list(texts)[:count]


class Pictures:
    """The part of a data set that is encoded here: picture files in memory."""

    def __init__(self, files: Sequence[bytes]):
        self.files = files

    def decoders(self, split: str, rows: slice = slice(None)) -> Iterator[Callable[[], np.ndarray]]:
        for payload in self.files[rows]:
            yield partial(decode, payload, "a picture")


@torch.no_grad()
def plain(encode: Callable[[Any], torch.Tensor], ready: Callable[[Any], torch.Tensor], items: Sequence[Any]) -> Any:
    """Unit vectors (N, D) of the plain loop: `encode` of what `ready` makes of each batch."""
    parts = [F.normalize(encode(ready(items[i : i + SIZE])), dim=-1) for i in range(0, len(items), SIZE)]
    return torch.cat(parts).numpy()


def ours(encoder: Any, items: Sequence[Any]) -> np.ndarray:
    """Unit vectors (N, D) as the stage embed makes them."""
    captions = [[text] for text in items] if encoder.reads == "captions" else []
    source = Source(Pictures(items), "train", len(items), captions, np.empty(0), "")
    (column,) = columns(encoder, source, 1)
    job = Job(Path(), {"split": "train"}, encoder, column, Path())
    vectors = encode_shard(job, slice(0, None), SIZE, Work(SIZE, CORES, length_buckets=True))[column.item]
    return F.normalize(torch.from_numpy(vectors), dim=-1).numpy()


@click.command()
@click.option("--model", default="ViT-B-32", show_default=True, help="A configuration that open_clip knows.")
@click.option("--n", default=512, show_default=True, help="Captions, repetitions included, or pictures.")
@click.option("--repeat", default=1, show_default=True)
@click.option("--captions", type=click.Path(exists=True, path_type=Path), help="A text file, one caption per line.")
@click.option("--pictures", type=click.Path(exists=True, path_type=Path), help="A tar of .jpg files, in their place.")
@click.option("--bf16", is_flag=True, help="Ours in bf16 as well.")
@click.option("--rounds", default=5, show_default=True)
def main(  # noqa: PLR0913 (a parameter for each option)
    model: str, n: int, repeat: int, captions: Path | None, pictures: Path | None, bf16: bool, rounds: int
) -> None:
    torch.manual_seed(0)
    network, config, tokenizer = new_clip(model)
    kind = ClipImage if pictures else ClipText
    with tempfile.TemporaryDirectory() as folder:
        save_clip(Path(folder), network.eval(), config, tokenizer)
        encoder, half = kind.open(Path(folder), []), kind.open(Path(folder), [])
    half.use_bf16()
    clip, tokenizer = encoder.clip, open_clip.get_tokenizer(model)

    if pictures:
        with tarfile.open(pictures) as archive:
            names = [member for member in archive if member.name.endswith(".jpg")]
            items = [archive.extractfile(member).read() for member in names[:n]]

        def ready(batch: Sequence[bytes]) -> torch.Tensor:
            return torch.stack([clip.preprocess(Image.open(io.BytesIO(payload))) for payload in batch])

        loop = partial(plain, clip.model.encode_image, ready, items)
        what = f"{len(items)} pictures of {np.mean([*map(len, items)]) / 1000:.0f} kB"
    else:
        texts = captions.read_text().splitlines()[: n // repeat] if captions else demo_captions(n // repeat)
        items = texts * repeat
        loop = partial(plain, clip.model.encode_text, tokenizer, items)
        words = np.mean([len(text.split()) for text in items])
        what = f"{len(items)} captions of {words:.1f} words, {len(set(items))} distinct"

    work = {"plain open_clip loop": loop, "condmix, fp32": partial(ours, encoder, items)}
    if bf16:
        work["condmix, bf16"] = partial(ours, half, items)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    cpu: dict[str, list[float]] = {name: [] for name in work}
    load_before = os.getloadavg()[0]
    for number in range(1 + rounds):
        made = {}
        for name, one in work.items():
            before, cpu_before = time.perf_counter(), time.process_time()
            made[name] = one()
            if number:
                seconds[name].append(time.perf_counter() - before)
                cpu[name].append(time.process_time() - cpu_before)
    print(
        f"{model}, random weights; {what}, batches of {SIZE}; {torch.get_num_threads()} threads, {CORES} cores, "
        f"{rounds} rounds after one of warm-up, torch {torch.__version__}, load before {load_before:.2f}\n"
    )
    print(
        "| loop | seconds | items / s | CPU seconds | speed-up | of CPU | smallest cosine |\n"
        "|---|---|---|---|---|---|---|"
    )
    expected = made["plain open_clip loop"]
    for name, taken in seconds.items():
        ratio, ratio_cpu = (
            median(a / b for a, b in zip(clock["plain open_clip loop"], clock[name], strict=True))
            for clock in (seconds, cpu)
        )
        cosine = (expected * made[name]).sum(axis=-1).min()
        print(
            f"| {name} | {median(taken):.2f} | {len(items) / median(taken):.0f} | {median(cpu[name]):.2f} "
            f"| {ratio:.2f} | {ratio_cpu:.2f} | {cosine:.5f} |"
        )


if __name__ == "__main__":
    main()
