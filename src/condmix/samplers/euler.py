"""Euler's method in EDM's variables, y = x / sqrt(a_bar) and sigma (Karras et al. 2022, arXiv:2206.00364).

A step y + (sigma_next - sigma) (y - x_0) / sigma = x_0 + sigma_next (y - x_0) / sigma is DDIM's, divided by
sqrt(a_bar_next): the pictures are those of `ddim`. The name is for those who know it from k-diffusion and diffusers.
"""

from math import sqrt

from torch import Tensor

from condmix.samplers import Denoise, Noise, Path, at


def euler(denoise: Denoise, x_T: Tensor, path: Path, noise: Noise) -> Tensor:
    """Pictures x_0 (B, ...) from x_T (B, ...), deterministic."""
    *moves, last = path
    y = x_T / sqrt(path[0].a_bar)
    for step, following in zip(moves, path[1:], strict=True):
        x_0 = denoise(sqrt(step.a_bar) * y, at(step.t, y))
        y = x_0 + following.sigma * (y - x_0) / step.sigma
    return denoise(sqrt(last.a_bar) * y, at(last.t, y))
