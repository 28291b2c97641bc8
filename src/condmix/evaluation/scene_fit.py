"""What a picture of the demo world shows, by a least-squares fit of every scene that the world can draw.

A scene is coverage * object colour + (1 - coverage) * background colour. For each legal coverage (shape, size, place)
and each pair of colours, the squared error over pixels and channels is minimised over the two colours, which may differ
from the named ones by the world's jitter. The scene with the smallest error is what the picture shows. Unlike a network
trained on real pictures, the fit is as right about imperfect pictures, and says how far they are from any scene.

Axes: N pictures, P = S * S pixels, M coverages, C object colours, B background colours, A attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np
from PIL import Image

from condmix.datasets._scenes import (
    ATTRIBUTES,
    BACKGROUND_COLOURS,
    COLOUR_JITTER,
    DIAMETER,
    FINE,
    OBJECT_COLOURS,
    SIDE,
    STARTS,
    ends,
    silhouette,
)  # fmt: skip

Fit = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

TURNS = 4  # of the two colours in the minimisation: they hardly depend on each other, as few pixels lie on an edge
CHUNK = 256  # pictures at once, to bound the memory


def fit_for(dataset: str) -> Fit | None:
    """The fit for a data set whose rules are known; None for all others."""
    return {"demo": fit_scenes}.get(dataset)


def fit_scenes(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What pictures (N, S, S, 3) uint8 show: values (N, A) int64 of ATTRIBUTES, and the residual (N,) float64.

    The residual is the root of the mean squared error over pixels and channels, in grey levels 0 to 255.
    """
    size = pictures.shape[1]
    coverages, scenes = legal_coverages(size)
    parts = [_best(pictures[start : start + CHUNK], coverages) for start in range(0, len(pictures), CHUNK)]
    best, errors = (np.concatenate(column) for column in zip(*parts, strict=True))
    coverage, colour, background = np.unravel_index(best, (len(scenes), len(OBJECT_COLOURS), len(BACKGROUND_COLOURS)))
    shape, diameter, position = scenes[coverage].T
    values = np.stack([shape, colour, diameter, position, background], axis=1)
    return values.astype(np.int64), np.sqrt(errors / (3 * size * size))


@cache
def legal_coverages(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every coverage (M, P) in 0..1 at `size` x `size` pixels, and its shape, size and position (M, 3)."""
    coverages, scenes = [], []
    for (i, shape), (j, diameter), (k, position) in product(
        *(enumerate(ATTRIBUTES[name]) for name in ("shape", "size", "position"))
    ):
        vertical, horizontal = ends(position)
        for top, left in product(STARTS[diameter][vertical], STARTS[diameter][horizontal]):
            coverage, side = np.zeros((SIDE, SIDE), np.float32), DIAMETER[diameter]
            coverage[top : top + side, left : left + side] = silhouette(shape, side) / FINE**2
            coverages.append(_resized(coverage, size).ravel())
            scenes.append((i, j, k))
    return np.array(coverages, np.float64), np.array(scenes)


def _resized(coverage: np.ndarray, size: int) -> np.ndarray:
    """As the stage prepare resizes pictures. Its filters are linear, so a resized scene has the resized coverage."""
    image = Image.fromarray(coverage)
    return np.asarray(
        image.reduce(SIDE // size) if SIDE % size == 0 else image.resize((size, size), Image.Resampling.LANCZOS)
    )


def _best(pictures: np.ndarray, coverages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best of the M * C * B scenes for each picture (N,), and its squared error (N,)."""
    pixels = pictures.reshape(len(pictures), -1, 3).astype(np.float64)  # (N, P, 3)
    a, b = coverages, 1 - coverages
    aa, ab, bb = (a * a).sum(1), (a * b).sum(1), (b * b).sum(1)  # (M,): |pixels - a x - b y|^2 expanded
    on_object = np.einsum("mp,npc->mnc", a, pixels, optimize=True)[:, :, None, None]  # (M, N, 1, 1, 3)
    on_background = np.einsum("mp,npc->mnc", b, pixels, optimize=True)[:, :, None, None]
    power = (pixels**2).sum(1)[:, None, None]
    colours = np.array(list(OBJECT_COLOURS.values()), float)[:, None]  # (C, 1, 3)
    backgrounds = np.array(list(BACKGROUND_COLOURS.values()), float)  # (B, 3)
    best, least = np.zeros(len(pictures), np.int64), np.full(len(pictures), np.inf)
    for m in range(len(coverages)):
        u, v, y = on_object[m], on_background[m], backgrounds
        for _ in range(TURNS):  # a convex function of x and y in a box, minimised over one colour at a time
            x = np.clip((u - ab[m] * y) / aa[m], colours - COLOUR_JITTER, colours + COLOUR_JITTER)
            y = np.clip((v - ab[m] * x) / bb[m], backgrounds - COLOUR_JITTER, backgrounds + COLOUR_JITTER)
        errors = power + aa[m] * x * x + bb[m] * y * y + 2 * (ab[m] * x * y - u * x - v * y)  # (N, C, B, 3)
        errors = errors.sum(-1).reshape(len(pictures), -1)
        scene = errors.argmin(1)
        error = errors[np.arange(len(pictures)), scene]
        better = error < least
        best[better], least[better] = m * errors.shape[1] + scene[better], error[better]
    return best, np.maximum(least, 0)
