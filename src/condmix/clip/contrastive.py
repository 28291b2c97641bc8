"""Images and their captions -> a trained CLIP: the contrastive loss of Radford et al. 2021, with open_clip's parts.

An image has several captions and a caption names only part of it, so within a batch a caption often fits other
images than its own. The loss's optimum, the log of p(image, text) / p(image) p(text), is the same nonetheless;
such pairs only add noise. Texts that join several captions of one image single it out, which lowers the noise
and shows the image tower everything at once; single captions are what will be embedded later. Both are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn

from condmix import CondmixError
from condmix.runtime.processes import averaging
from condmix.training.loop import Plan, fit
from condmix.training.muon import Muon, takes

MAX_LOGIT_SCALE = math.log(100)  # Radford et al.: a larger scale makes training unstable


@dataclass(frozen=True)
class Recipe:
    """How long and how fast; `warmup` is a share of the steps, `joined` one of the texts: they join several captions.

    `flip` mirrors half of the images.
    """

    steps: int
    batch_size: int
    lr: float
    warmup: float
    weight_decay: float
    optimizer: str = "adamw"  # or "muon", for matrices
    joined: float = 0.0
    flip: bool = False

    def plan(self, what: str, setting: str) -> Plan:
        return Plan(what, setting, self.steps, self.lr, self.warmup, clip_norm=1.0)


class Captioned(NamedTuple):
    """Images as pixels (N, 3, S, S) uint8, and the captions of each, none of them empty."""

    pixels: np.ndarray
    captions: Sequence[Sequence[str]]


def train_clip(
    group: PartialState,
    model: nn.Module,
    tokenizer: Callable[[Sequence[str]], Tensor],
    images: Captioned,
    recipe: Recipe,
    seed: int,
) -> float:
    """Train in place.

    Each process encodes its share of a batch and compares it with the whole batch. Same seed, machine, number of
    processes and threads: same weights. (Batch normalisation sees a process's share only, so another number of
    processes gives another CLIP.) Returns the loss averaged over the last tenth.
    """
    from open_clip.loss import ClipLoss

    (pixels, captions), rank, world = images, group.process_index, group.num_processes
    rng = np.random.default_rng(seed)
    model.to(group.device)
    layout = torch.channels_last  # of pictures and convolutions: on CPUs a quarter faster
    model.visual.to(memory_format=layout)
    # with gradients through the gathered features, the mean of the processes' losses is the loss of the whole batch
    criterion = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world)
    optimizers = make_optimizers(model, recipe)  # before DistributedDataParallel looks which gradients are sparse
    towers = averaging(model, group)
    share = min(recipe.batch_size, len(pixels)) // world
    if share < 2:  # one picture is told from no other, and batch normalisation needs two
        raise CondmixError(
            f"{len(pixels)} captioned pictures, in batches of {recipe.batch_size}, for a CLIP trained by {world} "
            "processes, each of which needs 2 in a batch: lower clip.processes, or raise clip.batch_size"
        )
    model.train()
    normalise, drawn = normaliser(model, group.device), batches(len(pixels), share * world, rng)

    def loss_of() -> Tensor:
        # every process draws for the whole batch, so that their generators stay together
        index = next(drawn)
        texts = [draw_text(captions[i], recipe.joined, rng) for i in index]
        mirrored = rng.random(len(index)) < 0.5
        mine = slice(rank * share, (rank + 1) * share)
        shown = normalise(torch.from_numpy(pixels[index[mine]])).contiguous(memory_format=layout)
        if recipe.flip:
            flips = torch.from_numpy(mirrored[mine]).to(group.device, non_blocking=True)
            shown = torch.where(flips[:, None, None, None], shown.flip(-1), shown)
        return criterion(*towers(shown, tokenizer(texts[mine]).to(group.device, non_blocking=True)))

    losses = fit(
        recipe.plan("CLIP", "clip.lr"), optimizers, loss_of, quiet=rank > 0,
        noted=lambda loss: reduce(loss.detach(), "mean"), after=lambda: clamp_scale(model),
    )  # fmt: skip
    model.eval()
    return float(np.mean(losses[-max(1, recipe.steps // 10) :]))


def clamp_scale(model: Any) -> None:
    """Keep the logits' scale where training is stable."""
    model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)


def make_optimizers(model: Any, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW or Muon, in which weights of matrices decay; and Adam for the rows of CLIP's token table that a batch uses.

    The table has a row for each of 49,408 tokens, nine tenths of a small CLIP. Updating and exchanging all of it would
    take a third of a step; and decay would shrink the tokens that never occur to zero.
    """
    options: dict[str, Any] = {"lr": recipe.lr, "betas": (0.9, 0.98), "eps": 1e-6}
    optimizers: list[torch.optim.Optimizer] = []
    table = None
    if hasattr(model, "token_embedding"):
        model.token_embedding.sparse = True
        table = model.token_embedding.weight
        optimizers.append(torch.optim.SparseAdam([table], **options))
    matrices = [p for p in model.parameters() if recipe.optimizer == "muon" and p is not table and takes(p)]
    if matrices:
        optimizers.append(Muon(matrices, lr=recipe.lr, weight_decay=recipe.weight_decay))
    left = [p for p in model.parameters() if p is not table and not any(p is one for one in matrices)]
    decay, others = [p for p in left if p.ndim >= 2], [p for p in left if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [*optimizers, torch.optim.AdamW(groups, **options, fused=True)]


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of `size` distinct rows (all rows where there are fewer), epoch after epoch."""
    size = min(size, count)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def draw_text(captions: Sequence[str], joined: float, rng: np.random.Generator) -> str:
    """One caption at random, or (with probability `joined`) two or more of them, joined in random order."""
    if len(captions) > 1 and rng.random() < joined:
        chosen = rng.permutation(len(captions))[: rng.integers(2, len(captions) + 1)]
        return ". ".join(captions[i].rstrip(". ") for i in chosen)
    return captions[int(rng.integers(len(captions)))]


def normaliser(model: Any, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """A function of uint8 (B, 3, S, S) at the model's size: its input on `device`, as its own preprocessing ends."""
    asked = model.visual.preprocess_cfg
    mean, std = (torch.tensor(asked[key], device=device)[:, None, None] for key in ("mean", "std"))

    def normalise(pixels: Tensor) -> Tensor:
        return (pixels.to(device, non_blocking=True).float() / 255 - mean) / std

    return normalise
