"""Trained model + conditions + one seed per picture -> uint8 pictures (B, S, S, 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from condmix import CondmixError
from condmix.diffusion.guidance import Predict, composed, denoiser, equal_weights, guided, within
from condmix.diffusion.model import ConditionalModel
from condmix.diffusion.schedule import Schedule
from condmix.samplers import SampleNoise, Step, path, times
from condmix.settings.load import plugin

ViewsAndMask = tuple[Mapping[str, Tensor], Tensor]  # vectors {perspective: (B, d_p)} and mask (B, P)
WatchTensors = Callable[
    [float, Tensor], None
]  # share of the steps that are done, pictures (B, S, S, 3) as they look now


class Start(NamedTuple):
    """A picture to begin at, in place of pure noise (SDEdit, Meng et al. 2021, arXiv:2108.01073)."""

    picture: Tensor  # x_0 (3, S, S) in [-1, 1]
    strength: float  # share of the diffusion time at which it is noised, above 0 and up to 1


@dataclass
class FirstTimes:
    """The part of a schedule that lies before a time, as samplers take it."""

    alpha_bar: Tensor


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn: the model's forward process, the sampler's settings, and guidance.

    `guidance` is s in uncond + s (cond - uncond); s = 1 is the plain conditional model. With `composed`, every
    source is asked by itself and weighs s / K in a picture that has K of them; `weights` {perspective: w} gives
    the named ones other weights, and implies `composed`. `interval` (low, high) guides only while the share t / T
    of the diffusion time is within it, 1 being pure noise; elsewhere s = 1, with all sources as one condition.
    `threshold` is the share of dynamic thresholding, 0 where pictures are merely clipped. `spacing` and `last_time`
    choose the times that the sampler visits (condmix.samplers.times), `steps` over the whole diffusion time; of them
    a `start` picture leaves the share of its strength.
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
    start: Start | None = None


@torch.no_grad()
def sample(
    model: ConditionalModel,
    sampling: Sampling,
    condition: ViewsAndMask,
    seeds: Sequence[int],
    negative: ViewsAndMask | None = None,
    watch: WatchTensors | None = None,
) -> Tensor:
    """Pictures (B, S, S, 3) uint8 of B conditions, drawn where the model lies.

    The conditions had best lie on the CPU: `composed` guidance reads the mask, and would wait for a GPU to give it.
    `negative` is a condition of the same shapes, from which guidance leads away; joint guidance at s = 1 ignores it.
    Picture i depends on its conditions and seeds[i] alone, not on its batch. `watch` is called after each step; what
    it raises ends the drawing.
    """
    size = model.architecture.image_size
    device = next(model.parameters()).device
    noise = SampleNoise(seeds, (3, size, size), device=device)
    predict = _predict(model, sampling, condition, negative)
    denoise = denoiser(predict, sampling.schedule, sampling.prediction, sampling.threshold)
    x_t, steps = _beginning(sampling, noise())
    if watch is not None:
        denoise = _watched(denoise, watch, len(steps))
    x_0 = plugin("samplers", sampling.sampler)(denoise, x_t.contiguous(memory_format=torch.channels_last), steps, noise)
    return _pixels(x_0)


def _beginning(sampling: Sampling, noise: Tensor) -> tuple[Tensor, list[Step]]:
    """Where sampling begins, (B, 3, S, S), and its steps from there.

    From a start picture x_0 that is sqrt(a_bar_t) x_0 + sqrt(1 - a_bar_t) noise, at the time t of its strength. To a
    sampler the times before it are the whole of a shorter schedule.
    """
    schedule: Schedule | FirstTimes = sampling.schedule
    x_t, steps, last = noise, sampling.steps, sampling.last_time
    if sampling.start is not None:
        picture, strength = sampling.start
        total = len(schedule.alpha_bar)
        schedule = FirstTimes(schedule.alpha_bar[: max(1, round(strength * total))])
        count = len(schedule.alpha_bar)
        steps, last = max(1, round(strength * steps)), None if last is None else min(1.0, last * total / count)
        t = torch.full((len(noise),), count - 1, device=noise.device)
        x_t = sampling.schedule.add_noise(picture.to(noise).expand_as(noise), noise, t)
    return x_t, path(schedule, times(schedule, steps, sampling.spacing, last))


def _watched(denoise: Predict, watch: WatchTensors, steps: int) -> Predict:
    """`denoise` that shows each estimate of the clean pictures. Samplers of second order call it more than `steps`."""
    done = 0

    def shown(x_t: Tensor, t: Tensor) -> Tensor:
        nonlocal done
        x_0 = denoise(x_t, t)
        done += 1
        watch(min(1.0, done / steps), _pixels(x_0))
        return x_0

    return shown


def _pixels(x_0: Tensor) -> Tensor:
    """(B, 3, S, S) in [-1, 1] -> (B, S, S, 3) uint8."""
    return ((x_0.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def sample_batches(
    model: ConditionalModel,
    sampling: Sampling,
    condition: ViewsAndMask,
    seeds: Sequence[int],
    batch_size: int,
    negative: ViewsAndMask | None = None,
) -> Iterator[Tensor]:
    """`sample` in batches, so that any number of pictures fits in memory."""
    for first in range(0, len(seeds), batch_size):
        rows = slice(first, first + batch_size)
        away = None if negative is None else rows_of(negative, rows)
        yield sample(model, sampling, rows_of(condition, rows), seeds[rows], away)


def rows_of(condition: ViewsAndMask, rows: slice) -> ViewsAndMask:
    """A part of a condition."""
    return {name: vectors[rows] for name, vectors in condition[0].items()}, condition[1][rows]


def _predict(
    model: ConditionalModel, sampling: Sampling, condition: ViewsAndMask, negative: ViewsAndMask | None
) -> Predict:
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


def sample_grid(model: ConditionalModel, sampling: Sampling, condition: ViewsAndMask) -> np.ndarray:
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
