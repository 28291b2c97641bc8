"""DDIM: steps along the predicted noise to the next noise level (Song et al. 2020, arXiv:2010.02502).

Eq. 12: x_next = sqrt(a_bar_next) x_0 + sqrt(1 - a_bar_next - sigma^2) epsilon + sigma noise
"""

from math import sqrt

from torch import Tensor

from condmix import CondmixError
from condmix.samplers import Denoise, Noise, Schedule, at, path


def ddim(
    denoise: Denoise,
    x_T: Tensor,
    schedule: Schedule,
    steps: int,
    noise: Noise,
    eta: float = 0.0,
    spacing: str = "trailing",
) -> Tensor:
    """Pictures x_0 (B, ...) from x_T (B, ...).

    eta scales sigma (eq. 16): 0 is deterministic, 1 is DDPM with the posterior's variance. epsilon is what
    separates x_t from x_0, so that where x_0 was clipped, both still add up to x_t.
    """
    if not 0 <= eta <= 1:
        raise CondmixError(f"eta = {eta} for DDIM; it takes 0 (deterministic) to 1 (ancestral)")
    x = x_T
    for t, a_bar, a_bar_next in path(schedule, steps, spacing):
        x_0 = denoise(x, at(t, x))
        epsilon = (x - sqrt(a_bar) * x_0) / sqrt(1 - a_bar)
        sigma = eta * sqrt((1 - a_bar_next) / (1 - a_bar) * (1 - a_bar / a_bar_next))
        # rounding can take the difference below zero where there is nothing left to keep
        x = sqrt(a_bar_next) * x_0 + sqrt(max(1 - a_bar_next - sigma**2, 0.0)) * epsilon
        if sigma > 0:
            x = x + sigma * noise()
    return x
