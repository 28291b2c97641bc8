"""Two sets of features -> how far apart they are, how varied, how near to the training pictures; and how sure.

Each measure answers another question, and each is computed over all pictures it is given, in float64 on the CPU:

    kernel_distance     KID: are the two distributions the same? Unbiased, so of the same mean at any n
    gaussian_mmd        CMMD's estimator: the same question under another kernel
    precision_recall    do the drawn pictures look real; are the real ones within the drawn ones' reach?
    diversity           how different are pictures of one and the same condition?
    nearest             how far is each picture from the closest training picture, in pixels?
    bootstrap_interval  how far could any such figure have come out otherwise, with other pictures?

A figure carries its published name (KID, CMMD) only with the network of its paper; elsewhere it is named after
its features, as the plug-ins of condmix.metrics do. The Fréchet distance stands in `condmix.evaluation.frechet`.
"""
# n, m pictures in each set, F features, C conditions, M pictures of one condition, S side in pixels

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from condmix import CondmixError
from condmix.evaluation.frechet import Statistics, frechet_distance
from condmix.runtime.seeds import derive

NEIGHBOURS = 3  # k of precision and recall, as in the paper
ROWS = 1000  # pictures in memory against all others at a time: 80 MB of float64 against 10,000


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """KID (Binkowski et al., 2018, arXiv:1801.01401) of features (n, F) and (m, F), n, m >= 2.

    The unbiased estimate of the squared maximum mean discrepancy, with the kernel (x.y / F + 1)^3. It may be
    below 0: its mean is 0 where both distributions are the same. It is taken once over all pictures, where
    the paper averages over random subsets of them, so no draw of subsets adds to its spread. Raises
    CondmixError for fewer than 2 pictures, unequal widths and features that are not finite.
    """
    first, second = _checked("a kernel distance", 2, first, second)
    n, m, width = len(first), len(second), first.shape[1]

    def kernel(dots: Tensor) -> Tensor:
        return (dots / width + 1) ** 3

    def within(features: Tensor) -> float:  # all pairs but each picture with itself
        return _sum(kernel, features, features) - kernel(features.square().sum(1)).sum().item()

    return within(first) / (n * (n - 1)) + within(second) / (m * (m - 1)) - 2 * _sum(kernel, first, second) / (n * m)


def gaussian_mmd(first: Tensor, second: Tensor, sigma: float = 10.0) -> float:
    """CMMD's estimator (Jayasumana et al., 2024, arXiv:2401.09603) of features (n, F) and (m, F), n, m >= 1.

    1000 times the squared maximum mean discrepancy with the kernel exp(-|x - y|^2 / (2 sigma^2)) of features
    scaled to unit length. It is the V-statistic (Gretton et al., 2012, equation 5), whose means take in each
    picture with itself: never below 0, and above 0 by the order of 1/n + 1/m for equal distributions. Raises
    CondmixError for no pictures, unequal widths, and features that are not finite or have length 0.
    """
    if not sigma > 0:
        raise CondmixError(f"the kernel's width sigma must be above 0, got {sigma}")
    units = []
    for features in _checked("a Gaussian-kernel distance", 1, first, second):
        lengths = features.norm(dim=1, keepdim=True)
        if (lengths == 0).any():
            raise CondmixError(
                "the features of some pictures are all 0, so they have no direction to compare; "
                "check the pictures and the feature network's weights"
            )
        units.append(features / lengths)

    def kernel(dots: Tensor) -> Tensor:
        return ((dots - 1) / sigma**2).exp()  # |x - y|^2 = 2 - 2 x.y between unit vectors

    def mean(rows: Tensor, columns: Tensor) -> float:
        return _sum(kernel, rows, columns) / (len(rows) * len(columns))

    return 1000 * (mean(units[0], units[0]) + mean(units[1], units[1]) - 2 * mean(units[0], units[1]))


def precision_recall(real: Tensor, drawn: Tensor, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al., 2019, arXiv:1904.06991) of features (n, F), (m, F).

    A set's reach is the union of balls around its pictures, each as large as the distance to the picture's
    k-th nearest neighbour in the same set. Precision is the share of drawn pictures within the real ones'
    reach, recall the share of real pictures within the drawn ones', both in 0 .. 1. Both depend on n and m:
    compare only figures of the same numbers. Raises CondmixError for k or fewer pictures, unequal widths and
    features that are not finite.
    """
    if k < 1:
        raise CondmixError(f"precision and recall need the 1st or a later neighbour, got k = {k}")
    real, drawn = _checked(f"precision and recall with k = {k}", k + 1, real, drawn)
    centre = real.mean(0)  # distances stay the same, and lose fewer digits to features far from 0
    real, drawn = real - centre, drawn - centre
    real_reach, drawn_reach = _reach(real, k), _reach(drawn, k)
    precise, recalled = 0.0, torch.zeros(len(real), dtype=torch.bool)
    for part, reach in zip(drawn.split(ROWS), drawn_reach.split(ROWS), strict=True):
        between = _squared_distances(part, real)
        precise += (between <= real_reach).any(1).sum().item()
        recalled |= (between <= reach[:, None]).any(0)
    return precise / len(drawn), recalled.double().mean().item()


def diversity(features: Tensor) -> float:
    """Mean distance between two pictures of one condition, from features (C, M, F), M >= 2, in feature units.

    The Euclidean distance, averaged over the pairs of a condition's M pictures and then over the C
    conditions; 0 where a model draws the same picture whatever the noise. Raises CondmixError for fewer than
    2 pictures of a condition, no condition, and features that are not finite.
    """
    if features.dim() != 3 or not len(features):
        raise CondmixError(
            f"diversity takes features of shape (conditions, pictures of each, width), got {tuple(features.shape)}"
        )
    each = [_checked("diversity", 2, condition)[0] for condition in features]
    return sum(torch.pdist(condition).mean().item() for condition in each) / len(each)


def nearest(pictures: np.ndarray | Tensor, training: np.ndarray | Tensor) -> Tensor:
    """Distance of pictures (n, S, S, 3) uint8 to the nearest of training (N, S, S, 3) uint8: (n,) float64.

    The root of the mean squared difference over pixels and channels, in the 0 .. 1 scale of pixel values:
    exactly 0 for a copy of a training picture, and 1 between black and white. `training` may be a np.memmap:
    ROWS pictures of it are read at a time, once each. Raises CondmixError for no pictures, unequal shapes and
    types other than uint8.
    """
    pictures, training = np.asarray(pictures), np.asarray(training)
    for given in (pictures, training):
        if given.dtype != np.uint8 or given.ndim != 4 or not given.size:
            raise CondmixError(
                f"nearest pictures are sought among uint8 pictures (n, S, S, 3), got {given.dtype} {given.shape}"
            )
    if pictures.shape[1:] != training.shape[1:]:
        raise CondmixError(f"pictures of shape {pictures.shape[1:]} and {training.shape[1:]} can't be compared")

    # |x|^2 + |y|^2 - 2 x.y is a sum of integers, which float64 keeps exactly up to 2^53 (float32 only up to
    # 2^24, which 255^2 * 768 exceeds even for pictures of 16 x 16): nothing is rounded before the root.
    def rows(chosen: np.ndarray) -> Tensor:
        return torch.from_numpy(chosen.reshape(len(chosen), -1).astype(np.float64))

    least = torch.full((len(pictures),), math.inf, dtype=torch.float64)
    for start in range(0, len(training), ROWS):
        known = rows(training[start : start + ROWS])
        lengths = known.square().sum(1)
        for first in range(0, len(pictures), ROWS):
            part = rows(pictures[first : first + ROWS])
            squared = part.square().sum(1) + (lengths - 2 * part @ known.T).amin(1)
            least[first : first + ROWS] = torch.minimum(least[first : first + ROWS], squared)
    return (least / math.prod(pictures.shape[1:])).sqrt() / 255


def bootstrap_interval(
    statistic: Callable[[Tensor], float],
    n: int,
    seed: int,
    resamples: int = 200,
    level: float = 0.95,
    centred: bool = False,
) -> tuple[float, float]:
    """The basic bootstrap interval (low, high) of a statistic of n exchangeable pictures.

    `statistic` takes the numbers (n,) int64 of the pictures to use, 0 .. n - 1 with repeats, and returns its
    value on them. With t its value on all pictures once, and q_lo, q_hi the quantiles (1 - level) / 2 and
    (1 + level) / 2 of its values on `resamples` draws of n pictures with replacement, the interval is
    2 t - q_hi .. 2 t - q_lo (Efron & Tibshirani, 1993, An Introduction to the Bootstrap; also called the reverse
    percentile interval).

    Basic, not percentile: a Fréchet distance of resampled pictures is biased upwards, as repeated pictures
    look less varied, and quantiles of such values would lie too high as they stand; subtracting them from 2 t
    takes that bias off. It also takes off the like bias of t itself, so a biased t may lie above its interval.

    With `centred` the resampled values are moved so that their mean is t, which leaves t and its bias in the middle.

    The same seed and n draw the same pictures, so a statistic that is a difference of two models is paired.
    Raises CondmixError for fewer than 2 pictures, too few resamples for the level, and values not finite.
    """
    if n < 2:
        raise CondmixError(f"a bootstrap interval needs at least 2 pictures, got {n}")
    if not 0 < level < 1:
        raise CondmixError(f"the level of an interval lies between 0 and 1, got {level}")
    needed = round(2 / (1 - level))  # at which one value is expected beyond either end
    if resamples < needed:
        raise CondmixError(f"a {level:g} interval needs at least {needed} resamples, got {resamples}")
    generator = torch.Generator().manual_seed(derive(seed, "bootstrap"))
    draws = (torch.randint(n, (n,), generator=generator) for _ in range(resamples))
    values = torch.tensor([statistic(draw) for draw in draws], dtype=torch.float64)
    whole = float(statistic(torch.arange(n)))
    if not (math.isfinite(whole) and values.isfinite().all()):
        raise CondmixError("the statistic is NaN or infinite for some resamples, so it has no bootstrap interval")
    if centred:
        values = values - values.mean() + whole
    tails = torch.tensor([(1 + level) / 2, (1 - level) / 2], dtype=torch.float64)
    low, high = 2 * whole - values.quantile(tails)
    return low.item(), high.item()


def frechet_interval(features: Tensor, reference: Statistics, seed: int, resamples: int = 200) -> tuple[float, float]:
    """The 95% bootstrap interval of the Fréchet distance from features (n, F) to `reference`, n >= 2.

    Only the n pictures are resampled; the reference counts as known. It is the interval of the distance of n
    pictures, as far as another n would have moved it. A Fréchet distance falls with growing n, and this bias
    stays on: the interval holds for comparisons at the same n. (The basic interval would take the bias off, and
    lie wholly below the distance where n is not many times F.) Both ends are clipped at 0, below which no
    distance lies. Each resample costs one `frechet_distance`. Raises CondmixError as that and
    `bootstrap_interval` do, and for features that are not finite.
    """
    (features,) = _checked("a Fréchet interval", 2, features)

    def distance(index: Tensor) -> float:
        return frechet_distance(Statistics.of(features[index]), reference)

    low, high = bootstrap_interval(distance, len(features), seed, resamples, centred=True)
    return max(0.0, low), max(0.0, high)


def _checked(measure: str, least: int, *sets: Tensor) -> list[Tensor]:
    """The sets (n, F) as float64 on the CPU, if `measure` can be taken of them: n >= least, the same F, finite."""
    for features in sets:
        if features.dim() != 2:
            raise CondmixError(f"{measure} takes features of shape (pictures, width), got {tuple(features.shape)}")
        if len(features) < least:
            raise CondmixError(f"{measure} needs at least {least} pictures, got {len(features)}")
        if features.shape[1] != sets[0].shape[1]:
            raise CondmixError(
                f"features of width {sets[0].shape[1]} and {features.shape[1]} can't be compared; "
                "both sets need the same feature network"
            )
        if not torch.isfinite(features).all():
            raise CondmixError(
                f"the features of some pictures are NaN or infinite, so {measure} can't be computed; "
                "check the pictures and the feature network's weights"
            )
    return [features.detach().cpu().double() for features in sets]


def _sum(kernel: Callable[[Tensor], Tensor], first: Tensor, second: Tensor) -> float:
    """The sum of kernel(x.y) over all pairs of rows, where `kernel` works on each dot product."""
    return sum(kernel(part @ second.T).sum().item() for part in first.split(ROWS))


def _reach(features: Tensor, k: int) -> Tensor:
    """Squared distance (n,) from each row to its k-th nearest other row."""
    # the row itself is the nearest of all, at 0: hence k + 1
    return torch.cat([_squared_distances(part, features).kthvalue(k + 1).values for part in features.split(ROWS)])


def _squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """|x - y|^2 (n, m) between all rows, by one matrix product, and exactly 0 between equal rows."""
    lengths = first.square().sum(1)[:, None] + second.square().sum(1)
    squared = lengths - 2 * first @ second.T
    # What lies below this is rounding, of either sign, and would part copies of one picture.
    rounding = lengths * first.shape[1] * torch.finfo(first.dtype).eps
    return squared.where(squared > rounding, 0.0)
