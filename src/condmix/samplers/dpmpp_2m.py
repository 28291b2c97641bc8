"""DPM-Solver++(2M): second-order steps from the last two estimates of x_0 (Lu et al. 2022, arXiv:2211.01095).

In lambda = log(signal / sigma), a step's exact solution is an integral of x_0 over lambda. The first step
takes x_0 for constant, which is DDIM; later ones extrapolate it to the middle of the step (algorithm 2); the
last, which leads to lambda = infinity, returns x_0.
"""

from math import expm1, sqrt

from torch import Tensor

from condmix.samplers import Denoise, Noise, Path, at


def dpmpp_2m(denoise: Denoise, x_T: Tensor, path: Path, noise: Noise) -> Tensor:
    """Pictures x_0 (B, ...) from x_T (B, ...), deterministic."""
    *moves, last = path
    x = x_T
    earlier: tuple[Tensor, float] | None = None  # the last step's x_0 and h
    for step in moves:
        x_0, h = denoise(x, at(step.t, x)), step.h
        middle = x_0 if earlier is None else x_0 + h / (2 * earlier[1]) * (x_0 - earlier[0])
        x = sqrt((1 - step.a_bar_next) / (1 - step.a_bar)) * x - sqrt(step.a_bar_next) * expm1(-h) * middle
        earlier = x_0, h
    return denoise(x, at(last.t, x))
