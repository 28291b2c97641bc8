"""What a training step reads: the order of the pictures, times, and which sources are dropped."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from condmix.runtime.seeds import derive


def batch_indices(seed: int, step: int, batch_size: int, count: int) -> Tensor:
    """Rows (B,) of batch number `step`: the pictures in a new random order each epoch, none left out."""
    first = step * batch_size
    rows = range(first, first + batch_size)
    return torch.tensor([int(_epoch_order(seed, row // count, count)[row % count]) for row in rows])


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive(seed, "epoch", epoch)))


def parts(count: int, size: int | None) -> list[slice]:
    """Slices of at most `size` rows (None: one slice) that together are 0 .. count-1."""
    size = size or count
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def drop_sources(mask: Tensor, p_uncond: float, p_source: float, generator: torch.Generator) -> Tensor:
    """The mask (B, P) to train with: a random part of the views that are present.

    A sample loses everything with p_uncond, which teaches the unconditional model; otherwise it loses each
    view independently with p_source, which teaches every subset. One that loses all its views in the second
    way is unconditional too: of samples with P views that makes p_uncond + (1 - p_uncond) p_source ** P.
    How many numbers are drawn depends on the mask's shape alone.
    """
    batch, sources = mask.shape
    draws = torch.rand(batch, sources + 1, generator=generator, device=generator.device).to(mask.device)
    keep_any, keep_source = draws[:, :1] >= p_uncond, draws[:, 1:] >= p_source
    return mask & keep_any & keep_source


def draw_times(count: int, steps: int, logit_normal: tuple[float, float] | None, generator: torch.Generator) -> Tensor:
    """Times (B,) in 0 .. steps-1: uniform, or the logistic function of a normal variable with this (mean, sd).

    A mean above 0 prefers noisy times (Esser et al. 2024, arXiv:2403.03206, section 3.1), where what a condition
    names is decided. The draws are spread evenly over the distribution, by one common random shift (Kingma et al.
    2021, arXiv:2107.00630, appendix I.1): the loss depends so strongly on the time that independent times would
    make up much of its variance from batch to batch. Each alone has the distribution asked for.
    """
    shift = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64)
    places = (torch.arange(count, device=generator.device) + shift) / count
    if logit_normal is not None:
        mean, sd = logit_normal
        places = torch.sigmoid(mean + sd * torch.special.ndtri(places))
    return (places * steps).long().clamp(max=steps - 1)  # rounding may take a place to 1


def to_model(images: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) -> float (B, 3, S, S) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def perturbed(vectors: Tensor, noise: Tensor, xi: float) -> Tensor:
    """h = f + xi |f| noise / |noise|, with unit norm: for f (B, D) and standard normal noise (B, D).

    CLIP's two towers put a picture and its captions near to each other, so a model that learns to draw a picture from
    any vector near the picture's own can be prompted with a text (LAFITE, language-free training: Zhou et al. 2022,
    arXiv:2111.13792, eq. 5). In D dimensions noise is nearly orthogonal to f, so that cos(h, f) is 1 / sqrt(1 + xi^2)
    up to O(1 / sqrt(D)). An absent vector, which is zero, remains zero.
    """
    length = vectors.norm(dim=-1, keepdim=True)
    moved = vectors + xi * length * noise / noise.norm(dim=-1, keepdim=True)
    return moved / moved.norm(dim=-1, keepdim=True).clamp_min(1e-12)
