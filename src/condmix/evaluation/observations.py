"""What is known of one set of drawn pictures: all that a measure (condmix.metrics) may be computed from."""
# n drawn pictures, N real ones, F features, A attributes, K captions of a picture, S image size

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from condmix.evaluation.caption_score import CaptionFit
from condmix.evaluation.frechet import Statistics


@dataclass(frozen=True)
class Space:
    """What one feature network sees in the drawn pictures and in all real ones of the test split."""

    name: str
    drawn: Tensor  # (n, F) float32
    real: Tensor  # (N, F) float32
    statistics: Statistics  # of `real`
    allowed: Tensor | None = None  # (N, F) of real pictures that show what the conditions name; None: that is not known
    training: Statistics | None = None  # of the whole training split, for the published set


@dataclass(frozen=True)
class Observations:
    """Drawn pictures as networks see them, and the held-out pictures that they were drawn for; None: not known.

    What is right is right by the best judge. `pictures`, `real`, `training` and `captions` are the headline set's.
    """

    spaces: tuple[Space, ...]
    attributes: tuple[str, ...] = ()
    right: np.ndarray | None = None  # (n, A) bool: does a picture show its held-out picture's value?
    named: np.ndarray | None = None  # (n, A) bool: does its condition name the attribute?
    mentions: np.ndarray | None = None  # (n, K, A) bool: does the held-out picture's k-th caption?
    class_right: np.ndarray | None = None  # (m,) bool, of the m <= n pictures whose class is known
    pictures: np.ndarray | None = None  # (n, S, S, 3) uint8
    real: np.ndarray | None = None  # (n, S, S, 3) uint8: the held-out pictures
    training: np.ndarray | None = None  # (M, S, S, 3) uint8
    captions: CaptionFit | None = None
    right_by_others: dict[str, np.ndarray] | None = None  # by each judge but the best, shaped as `right`; or (m, 1)
    residual: np.ndarray | None = None  # (n,) of the best fit of a scene, in grey levels
    held_out: np.ndarray | None = None  # (n,) bool: is its combination of attributes in no training picture?
    per_condition: int = 1  # neighbouring pictures that share a condition
    resamples: int = 0  # of a bootstrap; 0: no intervals
    seed: int = 0
