"""A request that was checked, ready to be drawn: from noise, or from a start picture; with previews on the way.

From a start picture x_0 (SDEdit, Meng et al. 2021, arXiv:2108.01073): x_t = sqrt(a_bar_t) x_0 + sqrt(1 - a_bar_t) noise
at the time t of `strength`, and sampling goes on from there. To a sampler that is the whole of a shorter schedule, the
first times of the model's own.

Axes: B batch, S side of a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from condmix.clip.shifted_diffusion import Trained
from condmix.diffusion.guidance import Predict, denoiser
from condmix.diffusion.model import ConditionalModel
from condmix.samplers import SampleNoise, path, times
from condmix.sampling.request import Request
from condmix.sampling.sample import Condition, Sampling, _predict
from condmix.settings.load import plugin

Watch = Callable[[float, np.ndarray], None]  # share of the steps that are done, pictures (B, S, S, 3) as they look now


class Start(NamedTuple):
    """Where sampling begins, if not at pure noise."""

    picture: Tensor  # x_0 (3, S, S) in [-1, 1]
    strength: float  # share of the diffusion time, above 0 and up to 1


@dataclass
class FirstTimes:
    """The part of a schedule that lies before a time, as samplers take it."""

    alpha_bar: Tensor


@dataclass(frozen=True)
class Drawing:
    """Calling it draws; before, nothing is drawn. `request` has every value that the model's defaults gave it."""

    model: ConditionalModel
    sampling: Sampling
    condition: Condition
    seeds: Sequence[int]
    batch_size: int
    request: Request
    negative: Condition | None = None
    prior: Trained | None = None  # gives each picture a vector of its own in the image's place
    start: Start | None = None

    def __call__(self, watch: Watch | None = None) -> np.ndarray:
        """Pictures (n, S, S, 3) uint8, one per seed. `watch` is called after each step; what it raises ends drawing."""
        vectors, mask = self.condition
        if self.prior is not None:
            vectors = {**vectors, "image": self.prior.sample(vectors["image"], self.seeds)}
        drawn = []
        for first in range(0, len(self.seeds), self.batch_size):
            rows = slice(first, first + self.batch_size)
            negative = None if self.negative is None else _part(self.negative, rows)
            drawn.append(self._batch(_part((vectors, mask), rows), negative, self.seeds[rows], watch))
        return np.concatenate(drawn)

    @torch.no_grad()
    def _batch(
        self, condition: Condition, negative: Condition | None, seeds: Sequence[int], watch: Watch | None
    ) -> np.ndarray:
        """As `condmix.sampling.sample.sample`, of which this is the same to the bit without a start picture."""
        sampling, size = self.sampling, self.model.architecture.image_size
        noise = SampleNoise(seeds, (3, size, size), device=next(self.model.parameters()).device)
        predict = _predict(self.model, sampling, condition, negative)
        denoise = denoiser(predict, sampling.schedule, sampling.prediction, sampling.threshold)
        x, alpha_bar, steps, last = noise(), sampling.schedule.alpha_bar, sampling.steps, sampling.last_time
        if self.start is not None:
            total = len(alpha_bar)
            alpha_bar = alpha_bar[: max(1, round(self.start.strength * total))]
            steps = max(1, round(self.start.strength * steps))
            last = None if last is None else min(1.0, last * total / len(alpha_bar))
            t = torch.full((len(x),), len(alpha_bar) - 1, device=x.device)
            x = sampling.schedule.add_noise(self.start.picture.to(x).expand_as(x), x, t)
        schedule = FirstTimes(alpha_bar)
        way = path(schedule, times(schedule, steps, sampling.spacing, last))
        if watch is not None:
            denoise = _watched(denoise, watch, len(way))
        x = x.contiguous(memory_format=torch.channels_last)
        return _pixels(plugin("samplers", sampling.sampler)(denoise, x, way, noise))


def _part(whole: Condition, rows: slice) -> Condition:
    return {name: vectors[rows] for name, vectors in whole[0].items()}, whole[1][rows]


def _watched(denoise: Predict, watch: Watch, steps: int) -> Predict:
    """`denoise` that shows each estimate of the clean pictures. Samplers of second order call it more than `steps`."""
    done = 0

    def shown(x_t: Tensor, t: Tensor) -> Tensor:
        nonlocal done
        x_0 = denoise(x_t, t)
        done += 1
        watch(min(1.0, done / steps), _pixels(x_0))
        return x_0

    return shown


def _pixels(x_0: Tensor) -> np.ndarray:
    """(B, 3, S, S) in [-1, 1] -> (B, S, S, 3) uint8."""
    return ((x_0.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
