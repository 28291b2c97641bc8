"""Predictions with and without the condition to a guided one (Ho & Salimans 2022, arXiv:2207.12598).

    guided = uncond + s (cond - uncond)

s = 0 ignores the condition, s = 1 is the plain conditional model, s > 1 overstates the condition. Ho and
Salimans write (1 + w) cond - w uncond, the same with s = 1 + w: the report's s = 3 is their w = 2.
Axes: B batch, P perspectives, D embedding.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]
Model = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Schedule(Protocol):
    def x0_from(self, prediction_type: str, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor: ...


def guided(model: Model, views: Tensor, mask: Tensor, scale: float | Tensor) -> Predict:
    """A function predict(x_t, t) -> (B, ...) of the model under a condition.

    model(x_t, t, views, mask) predicts; views (B, P, D) and mask (B, P), true where a view is present; to the
    model a mask without any is "unconditional". `scale` is a number, or a tensor (B,) with one per sample.
    The numbers 0 and 1 take one pass over B samples, everything else takes one over 2B.
    """
    nothing = torch.zeros_like(mask)
    if not isinstance(scale, Tensor) and scale in (0, 1):
        present = mask if scale == 1 else nothing
        return lambda x_t, t: model(x_t, t, views, present)

    both_views, both_masks = torch.cat([views, views]), torch.cat([nothing, mask])

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        both = model(torch.cat([x_t, x_t]), torch.cat([t, t]), both_views, both_masks)
        # in the precision of the picture: a large scale multiplies what a bf16 difference has lost
        uncond, cond = both.to(x_t.dtype).chunk(2)
        if not isinstance(scale, Tensor):
            return torch.lerp(uncond, cond, scale)
        return torch.lerp(uncond, cond, scale.to(x_t).view(-1, *[1] * (x_t.dim() - 1)))

    return predict


def denoiser(predict: Predict, schedule: Schedule, prediction_type: str, clip: bool = True) -> Predict:
    """A function denoise(x_t, t) -> x_0, as samplers take it, from predict(x_t, t) and what it predicts.

    `clip` keeps x_0 within [-1, 1], the range of pictures, which guidance likes to leave.
    """

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        x_0 = schedule.x0_from(prediction_type, predict(x_t, t).to(x_t.dtype), x_t, t)
        return x_0.clamp(-1, 1) if clip else x_0

    return denoise


def drop_sources(mask: Tensor, p_uncond: float, p_source: float, generator: torch.Generator) -> Tensor:
    """The mask (B, P) to train with: a random part of the views that are present.

    A sample loses everything with p_uncond, which teaches the unconditional model; otherwise it loses each
    view independently with p_source, which teaches every subset. One that loses all its views in the second
    way is unconditional too: of samples with P views that makes p_uncond + (1 - p_uncond) p_source ** P.
    How many numbers are drawn depends on the mask's shape alone.
    """
    batch, sources = mask.shape
    draws = torch.rand(batch, sources + 1, generator=generator, device=generator.device).to(mask.device)
    keep_any, keep_source = draws[:, :1] >= p_uncond, draws[:, 1:] >= p_source
    return mask & keep_any & keep_source
