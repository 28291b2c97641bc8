"""Training batches from scenes of the demo world: the same pictures, times and noise for every contender."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from condmix.datasets import _scenes
from condmix.runtime.seeds import derive
from condmix.training.batches import draw_times, to_model

WORLD = 7  # the demo profile's seed
STEPS = 1000  # of the diffusion


@dataclass(frozen=True)
class Batch:
    """Pictures (B, 3, 32, 32) in [-1, 1], times (B,) in 0 .. STEPS - 1, noise like the pictures; all NCHW."""

    x_0: Tensor
    t: Tensor
    noise: Tensor


def draw(count: int, number: int, seed: int, device: str) -> Batch:
    """Batch `number` of a training, by its seed and number alone; every scene is a new one."""
    generator = torch.Generator().manual_seed(derive(seed, "bench", number))
    t = draw_times(count, STEPS, None, generator)
    return _batch(scenes("train", number * count, count), t, generator, device)


def held_out(count: int, seed: int, device: str) -> Batch:
    """Scenes whose combinations of attributes no training batch shows, at times spread evenly."""
    generator = torch.Generator().manual_seed(derive(seed, "bench", "held out"))
    t = ((torch.arange(count) + 0.5) * STEPS / count).long()
    return _batch(scenes("test", 0, count), t, generator, device)


def scenes(split: str, first: int, count: int) -> np.ndarray:
    """(count, 32, 32, 3) uint8: scenes first, first + 1, ... of a split."""
    combinations = _divide()[split]
    pictures = []
    for number in range(first, first + count):
        dice = _scenes.Dice(WORLD, split=("train", "test").index(split), number=number)
        pictures.append(_scenes.picture(_scenes.values_of(dice.pick(combinations)), dice))
    return np.stack(pictures)


def _batch(pictures: np.ndarray, t: Tensor, generator: torch.Generator, device: str) -> Batch:
    x_0 = to_model(torch.from_numpy(pictures)).contiguous()
    noise = torch.randn(x_0.shape, generator=generator)
    return Batch(x_0.to(device), t.to(device), noise.to(device))


@cache
def _divide() -> dict[str, list[int]]:
    return _scenes.divide(WORLD)
