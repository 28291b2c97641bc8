"""Heun's second-order method, EDM's sampler without its churn (Karras et al. 2022, arXiv:2206.00364, algorithm 1).

In their variables, y = x / sqrt(a_bar) and sigma = sqrt((1 - a_bar) / a_bar), the probability-flow ODE is
dy / d sigma = (y - x_0) / sigma. A step is Euler's, and then again with the mean of the slopes at both its ends, for
which `denoise` is called twice; the last step, to sigma = 0, is Euler's alone.
"""

from math import sqrt

from torch import Tensor

from condmix.samplers import Denoise, Noise, Path, Step, at

NOISIEST = 200.0  # sigma; EDM begins at 80, DDPM's linear schedule at 157


def heun(denoise: Denoise, x_T: Tensor, path: Path, noise: Noise) -> Tensor:
    """Pictures x_0 (B, ...) from x_T (B, ...), deterministic; n steps call `denoise` 2 n - 1 times.

    Steps from above NOISIEST are Euler's alone: the cosine schedule's first one falls from 20,000 to 6 or so, and an
    error in the slope at its end, times half its length, would be hundreds of times a picture's range.
    """
    *moves, last = path
    y = x_T / sqrt(path[0].a_bar)
    for step, following in zip(moves, path[1:], strict=True):
        x_0, slope = _slope(denoise, y, step)
        y = x_0 + following.sigma * slope
        if step.sigma < NOISIEST:
            y = y + (following.sigma - step.sigma) * (_slope(denoise, y, following)[1] - slope) / 2
    return denoise(sqrt(last.a_bar) * y, at(last.t, y))


def _slope(denoise: Denoise, y: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """x_0 (B, ...) and dy / d sigma (B, ...) at the step's beginning."""
    x_0 = denoise(sqrt(step.a_bar) * y, at(step.t, y))
    return x_0, (y - x_0) / step.sigma
