"""Predictions under several conditions -> one guided prediction.

Joint guidance (Ho & Salimans 2022, arXiv:2207.12598) takes all sources as one condition:

    guided = uncond + s (cond - uncond)

s = 0 ignores the condition, s = 1 is the plain conditional model, s > 1 overstates the condition. Ho and
Salimans write (1 + w) cond - w uncond, the same with s = 1 + w: the report's s = 3 is their w = 2.

Composed guidance (Liu et al. 2022, arXiv:2206.01714, eq. 11) asks the model for each source i alone, and each
has a weight of its own:

    composed = uncond + sum_i w_i (cond_i - uncond)

Pictures and views lie where the model computes. Masks and times had best lie on the CPU: they decide which passes are
made, and to read them from a GPU is to wait for it. They are copied there when the model is called.

In both, a negative condition may stand in the unconditional one's place: guidance then leads away from what it
names. Either can be limited to an interval of times (Kynkäänniemi et al. 2024, arXiv:2404.07724).
Axes: B batch, P perspectives (the sources), D embedding.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from condmix import CondmixError
from condmix.diffusion.schedule import Schedule

Predict = Callable[[Tensor, Tensor], Tensor]
Model = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def guided(
    model: Model, views: Tensor, mask: Tensor, scale: float | Tensor, negative: tuple[Tensor, Tensor] | None = None
) -> Predict:
    """A function predict(x_t, t) -> (B, ...) of the model under a condition: joint guidance.

    model(x_t, t, views, mask) predicts; views (B, P, D) and mask (B, P), true where a view is present; to the
    model a mask without any is "unconditional". `scale` is a number, or a tensor (B,) with one per sample.
    `negative`, (views, mask) of the same shapes, takes the unconditional prediction's place.
    The numbers 0 and 1 take one pass over B samples, everything else takes one over 2B.
    """
    mask = _beside(mask, views)
    start_views, start_mask = _start(views, mask, negative)
    if not isinstance(scale, Tensor) and scale in (0, 1):
        chosen = (views, mask) if scale == 1 else (start_views, start_mask)
        return lambda x_t, t: model(x_t, _beside(t, x_t), *chosen)

    both_views, both_masks = torch.cat([start_views, views]), torch.cat([start_mask, mask])

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        both = model(torch.cat([x_t, x_t]), _beside(torch.cat([t, t]), x_t), both_views, both_masks)
        # in the precision of the picture: a large scale multiplies what a bf16 difference has lost
        start, cond = both.to(x_t.dtype).chunk(2)
        if not isinstance(scale, Tensor):
            return torch.lerp(start, cond, scale)
        return torch.lerp(start, cond, _per_sample(scale, x_t))

    return predict


def composed(
    model: Model, views: Tensor, mask: Tensor, weights: Tensor, negative: tuple[Tensor, Tensor] | None = None
) -> Predict:
    """Like `guided`, with every source's own prediction and weight: composed guidance.

    weights (P,) for all samples, or (B, P); `equal_weights` are the usual ones. A source that a sample lacks
    weighs nothing there, so a sample without any is predicted unconditionally. Where the whole batch has one
    source only, this is joint guidance to the bit, with the weight as the scale.
    One pass over B (K + 1) samples, K the number of sources that any sample of the batch has.
    CondmixError where a sample has a negative condition and no source: nothing would lead away from it.
    """
    if negative is not None and not mask.any(dim=1).all():
        raise CondmixError(
            "composed guidance leads from the negative condition to each source, but some pictures have no source; "
            "give them one, or use joint guidance"
        )
    sources = mask.any(dim=0).nonzero().flatten().tolist()
    mask = _beside(mask, views)
    weights = _beside(weights, views) * mask
    if len(sources) == 1:
        return guided(model, views, mask, weights[:, sources[0]], negative)

    start_views, start_mask = _start(views, mask, negative)
    alone = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    passes = 1 + len(sources)
    all_views = torch.cat([start_views, *[views] * len(sources)])
    all_masks = torch.cat([start_mask, *(mask & alone[source] for source in sources)])

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        outputs = model(torch.cat([x_t] * passes), _beside(torch.cat([t] * passes), x_t), all_views, all_masks)
        start, *conds = outputs.to(x_t.dtype).chunk(passes)  # as in `guided`, in the precision of the picture
        result = start
        for source, cond in zip(sources, conds, strict=True):
            result = result + _per_sample(weights[:, source], x_t) * (cond - start)
        return result

    return predict


def equal_weights(mask: Tensor, scale: float) -> Tensor:
    """Weights (B, P) for `composed`: each source that a sample has gets s / K, K the number of those it has.

    If sources said the same, the weights would add up to joint guidance at s.
    """
    return mask * (scale / mask.sum(dim=1, keepdim=True).clamp(min=1))


def within(interval: tuple[float, float], steps: int, inside: Predict, outside: Predict) -> Predict:
    """A function predict(x_t, t) that is `inside` at times low <= t / T < high and `outside` at all others.

    T = `steps` is the number of times of the schedule, so that 0 is the clean picture, 1 is pure noise, and
    (0, 1) is everywhere. Kynkäänniemi et al. state the interval in noise levels instead,
    sigma_low < sigma <= sigma_high with sigma^2 = (1 - a_bar_t) / a_bar_t. sigma rises with t, so each of
    their intervals is one of ours: for the cosine schedule t / T is close to (2 / pi) arctan(sigma).

    Only one of both functions is called, which saves passes where `outside` is the plain conditional model; so all
    samples must share their time, as in our samplers (ValueError where they do not). CondmixError unless
    0 <= low < high <= 1.
    """
    low, high = interval
    if not 0 <= low < high <= 1:
        raise CondmixError(
            f"guidance interval {low:g} to {high:g}; it takes two shares of the diffusion time, 0 <= low < high <= 1"
        )

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        (time,) = t.unique().tolist()
        return inside(x_t, t) if low <= time / steps < high else outside(x_t, t)

    return predict


def denoiser(predict: Predict, schedule: Schedule, prediction_type: str, threshold: float = 0.0) -> Predict:
    """A function denoise(x_t, t) -> x_0, as samplers take it, from predict(x_t, t) and what it predicts.

    x_0 is held in [-1, 1], the range of pictures, which guidance likes to leave. At `threshold` 0 it is clipped. Above
    that it is clipped to [-s, s] and divided by s, where s >= 1 is the absolute value that this share of the picture's
    values do not exceed: dynamic thresholding (Saharia et al. 2022, arXiv:2205.11487, section 2.3, with a share of
    0.995), which spares strong guidance saturated colours.
    """

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        x_0 = schedule.x0_from(prediction_type, predict(x_t, t).to(x_t.dtype), x_t, _beside(t, x_t))
        return _dynamically_clipped(x_0, threshold) if threshold else x_0.clamp(-1, 1)

    return denoise


def _dynamically_clipped(x_0: Tensor, share: float) -> Tensor:
    values = x_0.abs().flatten(1)
    rank = max(1, math.ceil(share * values.shape[1]))  # kthvalue, since torch.quantile has a largest size
    s = _per_sample(values.kthvalue(rank, dim=1).values.clamp(min=1), x_0)
    return x_0.clamp(-s, s) / s


def _start(views: Tensor, mask: Tensor, negative: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """The views and mask that guidance starts from: the negative condition's, or else nobody's."""
    return (views, torch.zeros_like(mask)) if negative is None else (negative[0], _beside(negative[1], views))


def _beside(small: Tensor, like: Tensor) -> Tensor:
    """A mask, times or weights where `like` lies; the CPU goes on while they are copied."""
    return small.to(like.device, non_blocking=True)


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """One number per sample (B,), shaped to multiply `like` (B, ...) and of its dtype."""
    return values.to(like).view(-1, *[1] * (like.dim() - 1))
