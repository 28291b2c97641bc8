"""DPM-Solver++(2M) SDE: dpmpp_2m's steps, with fresh noise in each (Lu et al. 2022, arXiv:2211.01095).

The reverse SDE in lambda = log(signal / sigma): a step forgets the share 1 - exp(-2 h) of the old noise's variance
and draws that much anew, which corrects what earlier steps did wrong and costs accuracy where steps are few.
"""

from math import exp, expm1, sqrt

from torch import Tensor

from condmix.samplers import Denoise, Noise, Path, at


def dpmpp_2m_sde(denoise: Denoise, x_T: Tensor, path: Path, noise: Noise) -> Tensor:
    """Pictures x_0 (B, ...) from x_T (B, ...); the last step adds no noise."""
    *moves, last = path
    x = x_T
    earlier: tuple[Tensor, float] | None = None  # the last step's x_0 and h
    for step in moves:
        x_0, h = denoise(x, at(step.t, x)), step.h
        middle = x_0 if earlier is None else x_0 + h / (2 * earlier[1]) * (x_0 - earlier[0])
        fresh = -expm1(-2 * h)
        kept = sqrt((1 - step.a_bar_next) / (1 - step.a_bar)) * exp(-h)
        x = kept * x + sqrt(step.a_bar_next) * fresh * middle + sqrt((1 - step.a_bar_next) * fresh) * noise()
        earlier = x_0, h
    return denoise(x, at(last.t, x))
