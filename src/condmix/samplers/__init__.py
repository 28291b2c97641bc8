"""What samplers share: which times they visit, and noise that belongs to one picture.

A sampler turns noise into pictures. It is one file here and a function of the file's name:

    sampler(denoise, x_T, path, noise) -> x_0

    denoise(x_t, t)  estimate of the clean picture x_0 (B, ...) from x_t (B, ...) at times t (B,), an int64
                     tensor on the CPU; already guided and clipped (guidance.denoiser makes one)
    x_T              standard normal noise (B, ...)
    path             the steps, from noisy to clean, as `path` makes them; `denoise` is called at each one's time, by
                     most samplers once
    noise()          fresh standard normal noise (B, ...); deterministic samplers never call it

Pictures keep the dtype and device of x_T; a step's coefficients are computed in float64.
"""

from collections.abc import Callable, Sequence
from math import inf, log, sqrt
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from condmix import CondmixError
from condmix.settings.plugins import unknown

SIGMA_MAX, RHO = 80.0, 7.0  # of Karras et al. 2022, table 1

Denoise = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[], Tensor]


class HasAlphaBar(Protocol):
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


def times(schedule: HasAlphaBar, steps: int, spacing: str, last: float | None = None) -> list[int]:
    """The times that a sampler visits, decreasing; `spacing` is one of SPACINGS.

    `last` is the last one as a share of the diffusion time, 0 .. 1; None: 1 / steps, which with uniform spacing is
    "trailing" of Lin et al. 2023, arXiv:2305.08891, table 2.
    """
    total = len(schedule.alpha_bar)
    if not 1 <= steps <= total:
        raise CondmixError(f"{steps} sampling steps; this schedule allows 1 to {total}")
    if spacing not in SPACINGS:
        raise CondmixError(unknown("spacing of times", spacing, list(SPACINGS)))
    wanted = SPACINGS[spacing](schedule, steps, last)
    found: list[int] = []
    for i, t in enumerate(wanted):  # rounding must neither repeat a time nor use up those of later steps
        found.append(max(min(t, found[-1] - 1) if found else t, steps - 1 - i))
    return found


def _uniform(schedule: HasAlphaBar, steps: int, last: float | None) -> list[int]:
    """Equal steps in t from the very last time, where training ends and sampling begins."""
    total = len(schedule.alpha_bar)
    stride = total / steps if last is None else total * (1 - last) / max(steps - 1, 1)
    return [round(total - i * stride) - 1 for i in range(steps)]


def _karras(schedule: HasAlphaBar, steps: int, last: float | None) -> list[int]:
    """Equal steps in sigma^(1 / rho), short where noise is low (Karras et al. 2022, arXiv:2206.00364, eq. 5).

    From sigma = 80, or the schedule's largest if that is less; each sigma is rounded to that of the nearest time.
    """
    end = max(round(len(schedule.alpha_bar) * (1 / steps if last is None else last)), 1) - 1
    log_sigma = (1 / schedule.alpha_bar.double() - 1).log() / 2
    high, low = (min(log_sigma[t].exp().item(), SIGMA_MAX) for t in (-1, end))
    sigmas = torch.linspace(high ** (1 / RHO), low ** (1 / RHO), steps, dtype=torch.float64) ** RHO
    return [int((log_sigma - sigma.log()).abs().argmin()) for sigma in sigmas]


SPACINGS = {"uniform": _uniform, "karras": _karras}


class Step(NamedTuple):
    """From the time t, with cumulative signal power a_bar, to the next time's; the last step leads to a_bar = 1."""

    t: int
    a_bar: float
    a_bar_next: float

    @property
    def sigma(self) -> float:
        """Noise over signal, sqrt((1 - a_bar) / a_bar): the noise level of EDM and k-diffusion."""
        return sqrt((1 - self.a_bar) / self.a_bar)

    @property
    def h(self) -> float:
        """The step's length in lambda = log(signal / sigma); infinite for the last one."""
        return log_snr(self.a_bar_next) - log_snr(self.a_bar)


Path = Sequence[Step]


def path(schedule: HasAlphaBar, times: Sequence[int]) -> list[Step]:
    """The steps through these times, decreasing, to the clean picture."""
    alpha_bar = schedule.alpha_bar.tolist()
    here = [alpha_bar[t] for t in times]
    return [Step(*step) for step in zip(times, here, [*here[1:], 1.0], strict=True)]


def log_snr(a_bar: float) -> float:
    """lambda = log(signal / sigma), half the logarithm of the signal-to-noise ratio."""
    return 0.5 * log(a_bar / (1 - a_bar)) if a_bar < 1 else inf


def at(t: int, x: Tensor) -> Tensor:
    """The time t for every sample of x: int64 (B,), on the CPU, since guidance decides by it what to compute."""
    return torch.full((len(x),), t, dtype=torch.int64)
