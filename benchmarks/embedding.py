"""Captions to vectors: our text encoder beside the plain open_clip loop, by turns, on the same captions and weights.

    PYTHONPATH=src python benchmarks/embedding.py --model ViT-B-32 --n 512 --captions captions.txt

The plain loop is what open_clip's README shows: tokenise a batch to the full context, `encode_text`, normalise. The
weights are random, which does not change how long they take. Without --captions, those of demo scenes are used, each
once; --repeat says how often each occurs, as class templates do.
"""

import os
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import numpy as np
import open_clip
import torch
import torch.nn.functional as F

from condmix.datasets._scenes import COMBINATIONS, Dice, values_of
from condmix.datasets._wording import describe
from condmix.embed import BATCH, _encode_once
from condmix.encode import new_clip
from condmix.encoders import save_clip
from condmix.encoders.clip_text import ClipText


def demo_captions(count: int) -> list[str]:
    texts: dict[str, None] = {}
    number = 0
    while len(texts) < count:
        dice = Dice(7, 0, number)
        texts |= dict.fromkeys(describe(values_of(dice.below(COMBINATIONS)), dice)[0])
        number += 1
    return list(texts)[:count]


@torch.no_grad()
def plain(model: torch.nn.Module, tokenizer, texts: list[str]) -> np.ndarray:  # noqa: ANN001
    parts = [
        F.normalize(model.encode_text(tokenizer(texts[i : i + BATCH])), dim=-1) for i in range(0, len(texts), BATCH)
    ]
    return torch.cat(parts).numpy()


@click.command()
@click.option("--model", default="ViT-B-32", show_default=True, help="A configuration that open_clip knows.")
@click.option("--n", default=512, show_default=True, help="Captions, repetitions included.")
@click.option("--repeat", default=1, show_default=True)
@click.option("--captions", type=click.Path(exists=True, path_type=Path), help="A text file, one caption per line.")
@click.option("--rounds", default=5, show_default=True)
def main(model: str, n: int, repeat: int, captions: Path | None, rounds: int) -> None:
    texts = captions.read_text().splitlines()[: n // repeat] if captions else demo_captions(n // repeat)
    texts = texts * repeat
    torch.manual_seed(0)
    network, config, tokenizer = new_clip(model)
    with tempfile.TemporaryDirectory() as folder:
        save_clip(Path(folder), network.eval(), config, tokenizer)
        encoder = ClipText.open(Path(folder), [])
    network, tokenizer = encoder.clip.model, open_clip.get_tokenizer(model)

    def ours() -> np.ndarray:
        vectors = torch.from_numpy(_encode_once(encoder, texts, len(texts), "captions"))
        return F.normalize(vectors, dim=-1).numpy()

    work = {"plain open_clip loop": lambda: plain(network, tokenizer, texts), "condmix": ours}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    load_before = os.getloadavg()[0]
    for number in range(1 + rounds):
        made = {}
        for name, one in work.items():
            before = time.perf_counter()
            made[name] = one()
            if number:
                seconds[name].append(time.perf_counter() - before)
    difference = abs(made["condmix"] - made["plain open_clip loop"]).max()
    words = np.mean([len(text.split()) for text in texts])
    print(
        f"{model}, random weights, fp32; {len(texts)} captions of {words:.1f} words, {len(set(texts))} distinct, "
        f"batches of {BATCH}; {torch.get_num_threads()} threads, {rounds} rounds, torch {torch.__version__}, "
        f"load before {load_before:.2f}; largest difference of a component {difference:.1e}\n"
    )
    print("| loop | seconds | captions / s | speed-up |\n|---|---|---|---|")
    for name, taken in seconds.items():
        ratio = median(a / b for a, b in zip(seconds["plain open_clip loop"], taken, strict=True))
        print(f"| {name} | {median(taken):.2f} | {len(texts) / median(taken):.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
