"""Trained model + conditions + one seed per picture -> uint8 pictures (B, S, S, 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from condmix.config import plugin
from condmix.diffusion import Schedule
from condmix.guidance import denoiser, guided
from condmix.model import ConditionalModel
from condmix.samplers import SampleNoise


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn: the model's forward process and the sampler's settings.

    `guidance` is s in uncond + s (cond - uncond); s = 1 is the plain conditional model.
    """

    schedule: Schedule
    prediction: str
    sampler: str
    steps: int
    guidance: float


@torch.no_grad()
def sample(
    model: ConditionalModel, sampling: Sampling, vectors: Mapping[str, Tensor], mask: Tensor, seeds: Sequence[int]
) -> Tensor:
    """Pictures (B, S, S, 3) uint8 for vectors {perspective: (B, d_p)} and mask (B, P).

    Picture i depends on its condition and seeds[i] alone, not on its batch.
    """
    size = model.architecture.image_size
    device = mask.device
    noise = SampleNoise(seeds, (3, size, size), device=device)
    predict = guided(model, model.embed(vectors), mask, sampling.guidance)
    denoise = denoiser(predict, sampling.schedule.to(device), sampling.prediction)
    x_T = noise().contiguous(memory_format=torch.channels_last)
    x_0 = plugin("samplers", sampling.sampler)(denoise, x_T, sampling.schedule, sampling.steps, noise)
    return ((x_0.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def sample_batches(
    model: ConditionalModel,
    sampling: Sampling,
    vectors: Mapping[str, Tensor],
    mask: Tensor,
    seeds: Sequence[int],
    batch_size: int,
) -> Iterator[Tensor]:
    """`sample` in batches, so that any number of pictures fits in memory."""
    for first in range(0, len(mask), batch_size):
        rows = slice(first, first + batch_size)
        part = {name: rows_of[rows] for name, rows_of in vectors.items()}
        yield sample(model, sampling, part, mask[rows], seeds[rows])


def sample_grid(
    model: ConditionalModel, sampling: Sampling, vectors: Mapping[str, Tensor], mask: Tensor, scale: int = 4
) -> np.ndarray:
    """One picture (H, W, 3) uint8 of a sample per condition, seeds 0, 1, 2, ..."""
    return grid(sample(model, sampling, vectors, mask, range(len(mask))).cpu().numpy(), scale=scale)


def grid(images: np.ndarray, columns: int | None = None, scale: int = 1, gap: int = 1) -> np.ndarray:
    """Lay pictures (N, S, S, 3) out on white, row by row, each pixel enlarged `scale` times without smoothing."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    cell = images.shape[1] + gap
    sheet = np.full((rows * cell + gap, columns * cell + gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * cell + gap, i % columns * cell + gap
        sheet[top : top + cell - gap, left : left + cell - gap] = image
    return sheet.repeat(scale, 0).repeat(scale, 1)
