"""DDPM's ancestral sampling: each step draws from the posterior q(x_next | x_t, x_0).

Ho et al. 2020 (arXiv:2006.11239), eq. 7, with the beta of the whole jump from x_t to x_next.
"""

from math import sqrt

from torch import Tensor

from condmix import CondmixError
from condmix.samplers import Denoise, Noise, Schedule, at, path

VARIANCES = ("fixed_large", "fixed_small")


def ddpm(
    denoise: Denoise,
    x_T: Tensor,
    schedule: Schedule,
    steps: int,
    noise: Noise,
    variance: str = "fixed_large",
    spacing: str = "trailing",
) -> Tensor:
    """Pictures x_0 (B, ...) from x_T (B, ...).

    `variance` of a step: "fixed_large" is beta, exact if pictures were standard normal noise;
    "fixed_small" is the posterior's own, exact if there were only one picture (section 3.2). The last step
    adds no noise.
    """
    if variance not in VARIANCES:
        raise CondmixError(f'no DDPM variance "{variance}"; found: {", ".join(VARIANCES)}')
    x = x_T
    for t, a_bar, a_bar_next in path(schedule, steps, spacing):
        alpha = a_bar / a_bar_next
        beta = 1 - alpha
        posterior = beta * (1 - a_bar_next) / (1 - a_bar)
        to_x_0 = sqrt(a_bar_next) * beta / (1 - a_bar)
        to_x_t = sqrt(alpha) * (1 - a_bar_next) / (1 - a_bar)
        x = to_x_0 * denoise(x, at(t, x)) + to_x_t * x
        if a_bar_next < 1:
            x = x + sqrt(beta if variance == "fixed_large" else posterior) * noise()
    return x
