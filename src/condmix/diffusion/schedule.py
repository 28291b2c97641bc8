"""Pictures to noisy pictures and back: noise schedules, prediction types and the training loss.

With a_bar the schedule's cumulative signal power (Ho et al. 2020, arXiv:2006.11239) and x_t as in its eq. 4,

    x_t = sqrt(a_bar_t) x_0 + sqrt(1 - a_bar_t) noise
    v   = sqrt(a_bar_t) noise - sqrt(1 - a_bar_t) x_0        (Salimans & Ho 2022, arXiv:2202.00512)

A network predicts one of "epsilon" (the noise), "v" or "x0"; each gives the other two. Times t are integers
0 .. steps - 1; t = 0 is the least noisy picture, not the clean one. Axes: B batch, T steps.
"""

import math

import torch
from torch import Tensor

from condmix import CondmixError

PREDICTION_TYPES = ("epsilon", "v", "x0")


class Schedule:
    """How much of the picture is left at each time: `alpha_bar` (T,), decreasing, computed in float64.

    name: "linear" (Ho et al., beta from 1e-4 to 0.02) or "cosine" (Nichol & Dhariwal 2021, arXiv:2102.09672).
    It has no parameters and is not part of a model's state. The table stays on the CPU, where samplers read it; times
    on another device are looked up in a copy there, made once.
    """

    def __init__(self, name: str, steps: int = 1000):
        if name not in _BETAS:
            raise CondmixError(f'no noise schedule "{name}"; found: {", ".join(_BETAS)}')
        self.name = name
        self.steps = steps
        self.alpha_bar = (1.0 - _BETAS[name](steps)).cumprod(0)
        self._copies: dict[torch.device, Tensor] = {}

    def add_noise(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t from the clean picture (B, ...), standard normal noise (B, ...) and times (B,)."""
        signal, sigma = self._scales(t, x_0)
        return signal * x_0 + sigma * noise

    def velocity(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, sigma = self._scales(t, x_0)
        return signal * noise - sigma * x_0

    def x0_from(self, prediction_type: str, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean picture (B, ...) that a network's output (B, ...) at x_t means."""
        _check_prediction_type(prediction_type)
        if prediction_type == "x0":
            return output
        signal, sigma = self._scales(t, x_t)
        if prediction_type == "v":
            return signal * x_t - sigma * output
        return (x_t - sigma * output) / signal

    def loss(
        self,
        prediction_type: str,
        output: Tensor,
        x_0: Tensor,
        noise: Tensor,
        t: Tensor,
        min_snr_gamma: float | None = None,
    ) -> Tensor:
        """Mean squared error per sample (B,) of a network's output (B, ...) for `add_noise(x_0, noise, t)`.

        `min_snr_gamma` (5 in the paper) weights it as Hang et al. 2023 (arXiv:2303.09556) do: in terms of x_0
        every prediction type then has the weight min(SNR, gamma).
        """
        _check_prediction_type(prediction_type)
        target = {"epsilon": noise, "x0": x_0}.get(prediction_type)
        if target is None:
            target = self.velocity(x_0, noise, t)
        error = (output.to(target.dtype) - target).square().flatten(1).mean(1)
        if min_snr_gamma is None:
            return error
        return error * min_snr_weight(prediction_type, self.snr(t), min_snr_gamma).to(error.dtype)

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio (B,), in powers, float64."""
        alpha_bar = self._at(t)
        return alpha_bar / (1.0 - alpha_bar)

    def _scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of picture and noise at t (B,), shaped to multiply `like` (B, ...) and of its dtype."""
        alpha_bar = self._at(t).view(-1, *[1] * (like.dim() - 1))
        return alpha_bar.sqrt().to(like.dtype), (1.0 - alpha_bar).sqrt().to(like.dtype)

    def _at(self, t: Tensor) -> Tensor:
        """a_bar (B,) at times t (B,), where they lie."""
        if t.device == self.alpha_bar.device:
            return self.alpha_bar[t]
        if t.device not in self._copies:
            self._copies[t.device] = self.alpha_bar.to(t.device, non_blocking=True)
        return self._copies[t.device][t]


def min_snr_weight(prediction_type: str, snr: Tensor, gamma: float) -> Tensor:
    """The factor (B,) that turns the loss of a prediction type into min(SNR, gamma) times that of x_0.

    The squared error of epsilon is SNR times that of x_0, the one of v is SNR + 1 times.
    """
    _check_prediction_type(prediction_type)
    per_x0 = {"epsilon": snr, "v": snr + 1.0, "x0": torch.ones_like(snr)}[prediction_type]
    return snr.clamp(max=gamma) / per_x0


def _check_prediction_type(name: str) -> None:
    if name not in PREDICTION_TYPES:
        raise CondmixError(f'no prediction type "{name}"; found: {", ".join(PREDICTION_TYPES)}')


def _linear_betas(steps: int) -> Tensor:
    return torch.linspace(1e-4, 0.02, steps, dtype=torch.float64)


def _cosine_betas(steps: int) -> Tensor:
    ends = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = ((ends + 0.008) / 1.008 * math.pi / 2).cos().square()
    # the clip keeps some signal at the end: without it alpha_bar would reach 0 and epsilon would say nothing
    return (1.0 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


_BETAS = {"linear": _linear_betas, "cosine": _cosine_betas}
