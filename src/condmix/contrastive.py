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

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from condmix import CondmixError

MAX_LOGIT_SCALE = math.log(100)  # Radford et al.: a larger scale makes training unstable


@dataclass(frozen=True)
class Recipe:
    """How long and how fast; `joined` is the share of texts that join several captions, `flip` mirrors images."""

    steps: int
    batch_size: int
    lr: float
    warmup: int
    weight_decay: float
    joined: float
    flip: bool


def train_clip(
    model: nn.Module,
    tokenizer: Callable[[Sequence[str]], Tensor],
    pixels: np.ndarray,
    captions: Sequence[Sequence[str]],
    recipe: Recipe,
    seed: int,
) -> float:
    """Train in place on pixels (N, 3, S, S) uint8 and captions[i] of image i, none of them empty.

    Same seed, same machine, same thread count: same weights. Returns the loss averaged over the last tenth.
    """
    from open_clip.loss import ClipLoss

    rng = np.random.default_rng(seed)
    optimizer = make_optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, recipe))
    criterion = ClipLoss()
    device = model.logit_scale.device
    model.train()
    losses = []
    progress = tqdm(total=recipe.steps * recipe.batch_size, desc="train CLIP", unit="img", unit_scale=True)
    for step, index in zip(range(recipe.steps), batches(len(pixels), recipe.batch_size, rng), strict=False):
        images = normalise(torch.from_numpy(pixels[index]).to(device), model)
        if recipe.flip:
            mirrored = torch.from_numpy(rng.random(len(index)) < 0.5).to(device)
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        texts = [draw_text(captions[i], recipe.joined, rng) for i in index]
        image_features, text_features, scale = model(images, tokenizer(texts).to(device))
        loss = criterion(image_features, text_features, scale)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise CondmixError(f"the CLIP's loss became {losses[-1]} at step {step}: lower clip.lr ({recipe.lr:g})")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        progress.update(len(index))
        progress.set_postfix(loss=f"{losses[-1]:.3f}")
    progress.close()
    model.eval()
    return float(np.mean(losses[-max(1, recipe.steps // 10) :]))


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; weights of matrices decay, but not the token table: tokens that never occur would shrink to zero."""
    table = model.token_embedding.weight if hasattr(model, "token_embedding") else None
    decay = [p for p in model.parameters() if p.ndim >= 2 and p is not table]
    others = [p for p in model.parameters() if p.ndim < 2 or p is table]
    groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    # fused: the token table has a row for each of 49,408 tokens, and the plain update takes a third of a step
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), eps=1e-6, fused=True)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Share of the full learning rate: linear warm-up, then half a cosine to zero."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)))


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
    return captions[rng.integers(len(captions))]


def normalise(pixels: Tensor, model: nn.Module) -> Tensor:
    """uint8 (B, 3, S, S) at the model's size -> its input, as its own preprocessing ends."""
    mean, std = (
        torch.tensor(model.visual.preprocess_cfg[key], device=pixels.device)[:, None, None] for key in ("mean", "std")
    )
    return (pixels.float() / 255 - mean) / std
