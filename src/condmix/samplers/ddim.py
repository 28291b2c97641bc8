"""DDIM: steps along the predicted noise to the next noise level (Song et al. 2020, arXiv:2010.02502).

Eq. 12 with sigma = 0: x_next = sqrt(a_bar_next) x_0 + sqrt(1 - a_bar_next) epsilon
"""

from math import sqrt

from torch import Tensor

from condmix.samplers import Denoise, Noise, Path, at


def ddim(denoise: Denoise, x_T: Tensor, path: Path, noise: Noise) -> Tensor:
    """Pictures x_0 (B, ...) from x_T (B, ...), deterministic.

    epsilon is what separates x_t from x_0, so that where x_0 was clipped, both still add up to x_t.
    """
    x = x_T
    for t, a_bar, a_bar_next in path:
        x_0 = denoise(x, at(t, x))
        epsilon = (x - sqrt(a_bar) * x_0) / sqrt(1 - a_bar)
        x = sqrt(a_bar_next) * x_0 + sqrt(1 - a_bar_next) * epsilon
    return x
