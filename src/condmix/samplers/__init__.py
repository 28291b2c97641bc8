"""What samplers share: which times they visit, and noise that belongs to one picture.

A sampler turns noise into pictures. It is one file here and a function of the file's name:

    sampler(denoise, x_T, schedule, steps, noise) -> x_0

    denoise(x_t, t)  estimate of the clean picture x_0 (B, ...) from x_t (B, ...) at times t (B,), an int64
                     tensor on the CPU; already guided and clipped (guidance.denoiser makes one)
    x_T              standard normal noise (B, ...)
    schedule         anything with `alpha_bar` (T,), the cumulative signal power at times 0 .. T - 1
    steps            how many times `denoise` is called, 1 .. T
    noise()          fresh standard normal noise (B, ...); deterministic samplers never call it

Pictures keep the dtype and device of x_T; a step's coefficients are computed in float64.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from condmix import CondmixError

Denoise = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[], Tensor]


class Schedule(Protocol):
    alpha_bar: Tensor


class SampleNoise:
    """Standard normal noise (B, *shape) at every call; sample i draws from its own generator, of seeds[i].

    So a picture depends neither on its batch nor on its place in it. Noise is drawn on the CPU and then
    moved: a seed means the same noise on every device. By convention the first call gives x_T.

    Seeds are 0 .. 2**32 - 1: torch's CPU generator reads 32 bits only, and 2**32 would draw what 0 draws.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"):
        wrong = [seed for seed in seeds if not 0 <= seed < 2**32]
        if wrong:
            raise CondmixError(f"seed {wrong[0]} for a picture; it takes 0 to {2**32 - 1}")
        self.shape = tuple(shape)
        self.device = device
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self) -> Tensor:
        return torch.stack([torch.randn(self.shape, generator=g) for g in self._generators]).to(
            self.device, non_blocking=True
        )


def timesteps(schedule_steps: int, steps: int) -> list[int]:
    """The times that a sampler visits, from noisy to clean: "trailing" of Lin et al. 2023, arXiv:2305.08891, table 2.

    They start at the very last time, where training ends and sampling begins.
    """
    if not 1 <= steps <= schedule_steps:
        raise CondmixError(f"{steps} sampling steps; this schedule allows 1 to {schedule_steps}")
    return [round(schedule_steps - i * (schedule_steps / steps)) - 1 for i in range(steps)]


def path(schedule: Schedule, steps: int) -> list[tuple[int, float, float]]:
    """A sampler's steps as (t, a_bar at t, a_bar at the next time); the last one leads to a_bar = 1."""
    alpha_bar = schedule.alpha_bar.tolist()
    times = timesteps(len(alpha_bar), steps)
    here = [alpha_bar[t] for t in times]
    return list(zip(times, here, [*here[1:], 1.0], strict=True))


def at(t: int, x: Tensor) -> Tensor:
    """The time t for every sample of x: int64 (B,), on the CPU, since guidance decides by it what to compute."""
    return torch.full((len(x),), t, dtype=torch.int64)
