"""DDPM's ancestral sampling: each step draws from the posterior q(x_next | x_t, x_0).

Ho et al. 2020 (arXiv:2006.11239), eq. 7, with the beta of the whole jump from x_t to x_next. A step's variance is beta,
exact if pictures were standard normal noise (section 3.2).
"""

from math import sqrt

from torch import Tensor

from condmix.samplers import Denoise, Noise, Path, at


def ddpm(denoise: Denoise, x_T: Tensor, path: Path, noise: Noise) -> Tensor:
    """Pictures x_0 (B, ...) from x_T (B, ...); the last step adds no noise."""
    x = x_T
    for t, a_bar, a_bar_next in path:
        alpha = a_bar / a_bar_next
        beta = 1 - alpha
        to_x_0 = sqrt(a_bar_next) * beta / (1 - a_bar)
        to_x_t = sqrt(alpha) * (1 - a_bar_next) / (1 - a_bar)
        x = to_x_0 * denoise(x, at(t, x)) + to_x_t * x
        if a_bar_next < 1:
            x = x + sqrt(beta) * noise()
    return x
