"""Trained model + conditions + one seed per picture -> uint8 pictures (B, S, S, 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from condmix import CondmixError
from condmix.diffusion.guidance import Predict, composed, denoiser, equal_weights, guided, within
from condmix.diffusion.model import ConditionalModel
from condmix.diffusion.schedule import Schedule
from condmix.samplers import SampleNoise, path, times
from condmix.settings.load import plugin

Condition = tuple[Mapping[str, Tensor], Tensor]  # vectors {perspective: (B, d_p)} and mask (B, P)


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn: the model's forward process, the sampler's settings, and guidance.

    `guidance` is s in uncond + s (cond - uncond); s = 1 is the plain conditional model. With `composed`, every
    source is asked by itself and weighs s / K in a picture that has K of them; `weights` {perspective: w} gives
    the named ones other weights, and implies `composed`. `interval` (low, high) guides only while the share t / T
    of the diffusion time is within it, 1 being pure noise; elsewhere s = 1, with all sources as one condition.
    `threshold` is the share of dynamic thresholding, 0 where pictures are merely clipped. `spacing` and `last_time`
    choose the times that the sampler visits (condmix.samplers.times).
    Formulas and sources are in condmix.diffusion.guidance.
    """

    schedule: Schedule
    prediction: str
    sampler: str
    steps: int
    guidance: float
    weights: Mapping[str, float] | None = None
    composed: bool = False
    interval: tuple[float, float] | None = None
    threshold: float = 0.0
    spacing: str = "uniform"
    last_time: float | None = None


@torch.no_grad()
def sample(
    model: ConditionalModel,
    sampling: Sampling,
    condition: Condition,
    seeds: Sequence[int],
    negative: Condition | None = None,
) -> Tensor:
    """Pictures (B, S, S, 3) uint8 of B conditions, drawn where the model lies.

    The conditions had best lie on the CPU: `composed` guidance reads the mask, and would wait for a GPU to give it.
    `negative` is a condition of the same shapes, from which guidance leads away; joint guidance at s = 1 ignores it.
    Picture i depends on its conditions and seeds[i] alone, not on its batch.
    """
    size = model.architecture.image_size
    device = next(model.parameters()).device
    noise = SampleNoise(seeds, (3, size, size), device=device)
    predict = _predict(model, sampling, condition, negative)
    denoise = denoiser(predict, sampling.schedule, sampling.prediction, sampling.threshold)
    x_T = noise().contiguous(memory_format=torch.channels_last)
    steps = path(sampling.schedule, times(sampling.schedule, sampling.steps, sampling.spacing, sampling.last_time))
    x_0 = plugin("samplers", sampling.sampler)(denoise, x_T, steps, noise)
    return ((x_0.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def sample_batches(
    model: ConditionalModel,
    sampling: Sampling,
    condition: Condition,
    seeds: Sequence[int],
    batch_size: int,
    negative: Condition | None = None,
) -> Iterator[Tensor]:
    """`sample` in batches, so that any number of pictures fits in memory."""

    def part(whole: Condition) -> Condition:
        return {name: rows_of[rows] for name, rows_of in whole[0].items()}, whole[1][rows]

    for first in range(0, len(seeds), batch_size):
        rows = slice(first, first + batch_size)
        away = None if negative is None else part(negative)
        yield sample(model, sampling, part(condition), seeds[rows], away)


def _predict(model: ConditionalModel, sampling: Sampling, condition: Condition, negative: Condition | None) -> Predict:
    """The model's prediction under the guidance that `sampling` asks for."""
    views, mask = _embed(model, condition[0]), condition[1]
    away = None if negative is None else (_embed(model, negative[0]), negative[1])
    if sampling.composed or sampling.weights is not None:
        predict = composed(model, views, mask, _weights(model, sampling, mask), away)
    else:
        predict = guided(model, views, mask, sampling.guidance, away)
    if sampling.interval is None:
        return predict
    return within(sampling.interval, sampling.schedule.steps, predict, guided(model, views, mask, 1))


def _embed(model: ConditionalModel, vectors: Mapping[str, Tensor]) -> Tensor:
    """Views (B, P, D) where the model lies."""
    device = next(model.parameters()).device
    return model.embed({name: rows.to(device, non_blocking=True) for name, rows in vectors.items()})


def _weights(model: ConditionalModel, sampling: Sampling, mask: Tensor) -> Tensor:
    """Weights (B, P) of the sources: those that were given by name, and equal ones for the rest."""
    names = list(model.architecture.perspectives)
    weights = equal_weights(mask, sampling.guidance)
    for name, weight in (sampling.weights or {}).items():
        if name not in names:
            raise CondmixError(f'a weight for "{name}", but the model sees {", ".join(names)}')
        weights[:, names.index(name)] = weight
    return weights


def sample_grid(model: ConditionalModel, sampling: Sampling, condition: Condition) -> np.ndarray:
    """One picture (H, W, 3) uint8 of a sample per condition, seeds 0, 1, 2, ..."""
    return grid(sample(model, sampling, condition, range(len(condition[1]))).cpu().numpy(), scale=4)


def grid(images: np.ndarray, columns: int | None = None, scale: int = 1) -> np.ndarray:
    """Lay pictures (N, S, S, 3) out on white, row by row, each pixel enlarged `scale` times without smoothing."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    cell = images.shape[1] + 1  # with a white line between two
    sheet = np.full((rows * cell + 1, columns * cell + 1, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * cell + 1, i % columns * cell + 1
        sheet[top : top + cell - 1, left : left + cell - 1] = image
    return sheet.repeat(scale, 0).repeat(scale, 1)
