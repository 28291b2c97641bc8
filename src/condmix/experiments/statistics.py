"""Scores of the same held-out conditions under the same seeds -> is one experiment better than another?

Two experiments are asked for the same n conditions (held-out pictures) under the same S training seeds, so their scores
are compared in pairs. A condition that is hard for one is mostly hard for the other, and pairing takes that out.
What is claimed is claimed of further trainings, so a training counts as one observation: t tests of S pairs.
"""
# S seeds, n conditions, A attributes, R resamples

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from condmix import CondmixError
from condmix.runtime.seeds import derive

LEVEL = 0.05  # of a verdict, after the correction for many comparisons
EQUAL = 1e-12  # a spread of rounding
NO_DIFFERENCE, UNTESTED = "no difference found", "one seed"  # verdicts
CHUNK = 1000  # resamples at a time: (CHUNK, n) weights stay small


@dataclass(frozen=True)
class Comparison:
    """What pairs of scores say about first minus second; `low`..`high` holds it with 95% confidence.

    `p` is of no difference, two-sided; `at_most` where it is the least that a resampling can show, an upper bound.
    With one seed it is None: the interval then knows the luck of the conditions only, not that of the training.
    `effect` is Cohen's d_z over conditions, None where all conditions differ alike.
    """

    difference: float
    low: float
    high: float
    p: float | None
    effect: float | None
    by_seed: tuple[float, ...]
    n: int
    at_most: bool = False

    @property
    def seeds(self) -> int:
        return len(self.by_seed)


@dataclass(frozen=True)
class Spread:
    """One number per seed: their mean and standard deviation (None for one seed)."""

    mean: float
    sd: float | None
    seeds: int


def scene_score(right: np.ndarray) -> np.ndarray:
    """(n, A) bool, is the attribute right -> (n,) share of a picture's attributes that are, named or not."""
    shares: np.ndarray = right.mean(axis=1)
    return shares


def asked_score(right: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(n, A) bool twice -> share of the asked attributes that are right, of the pictures of which any is asked.

    Asked of two experiments, `asked` has to be the same: else the one that is told more is also examined in more.
    """
    some = asked.any(axis=1)
    shares: np.ndarray = (right & asked)[some].sum(axis=1) / asked[some].sum(axis=1)
    return shares


def crossed_bootstrap(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """(S, n) -> (R,) means of resampled values: seeds and conditions are drawn with replacement, independently.

    The pigeonhole bootstrap of Owen (2007), "The pigeonhole bootstrap", Annals of Applied Statistics 1(2). It is
    conservative: the part of the variance that a single (seed, condition) adds is counted up to three times. Of what
    S seeds add any bootstrap counts only (S - 1) / S, half of it for two; so the seeds' deviations from their mean
    are first stretched by sqrt(S / (S - 1)). Few seeds stay few: an interval of three knows no rare fourth one.
    With S = 1 only the conditions are resampled.
    """
    seeds, n = values.shape
    if seeds > 1:
        mean, of_seeds = values.mean(), values.mean(axis=1, keepdims=True)
        values = values + (of_seeds - mean) * (np.sqrt(seeds / (seeds - 1)) - 1)
    random = np.random.default_rng(derive(seed, "crossed bootstrap"))
    means = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        of_seeds, of_conditions = drawn_counts(random, seeds, size), drawn_counts(random, n, size)
        means.append(((of_seeds @ values) * of_conditions).sum(axis=1) / (seeds * n))
    return np.concatenate(means)


def drawn_counts(random: np.random.Generator, n: int, size: int) -> np.ndarray:
    """(size, n): how often each of n things comes up in n draws with replacement, `size` times over."""
    drawn = random.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)


def interval(values: np.ndarray, seed: int, resamples: int = 10_000) -> tuple[float, float]:
    """The 95% percentile interval of the mean of scores (S, n), by `crossed_bootstrap`."""
    low, high = np.quantile(crossed_bootstrap(checked(values), seed, resamples), [0.025, 0.975])
    return float(low), float(high)


def compare(first: np.ndarray, second: np.ndarray, seed: int, resamples: int = 10_000) -> Comparison:
    """Scores (S, n) of two experiments, row by row the same seed and column by column the same condition.

    Interval and p are those of `paired_t` on the seeds' mean differences: of these n conditions and any seed. Where
    these do not vary they are bootstrapped over the conditions: the percentile interval of `crossed_bootstrap`, and
    p = 2 (1 + min(#(d* <= 0), #(d* >= 0))) / (R + 1) over the R resampled mean differences d* (Davison & Hinkley,
    1997, eq. 4.11, for both sides). One seed has that interval, and no p.
    The effect size is d_z = mean difference / standard deviation over conditions of the seed-averaged differences.
    """
    first, second = checked(first), checked(second)
    if first.shape != second.shape:
        raise CondmixError(
            f"scores of {first.shape[0]} seeds x {first.shape[1]} conditions can't be paired with scores of "
            f"{second.shape[0]} x {second.shape[1]}; give both experiments the same seeds and the same pictures"
        )
    differences = first - second
    difference, by_seed = float(differences.mean()), differences.mean(axis=1)
    p, at_most = None, False
    if by_seed.std() > EQUAL:
        low, high, p = paired_t(by_seed)
    else:
        drawn = crossed_bootstrap(differences, seed, resamples)
        low, high = np.quantile(drawn, [0.025, 0.975])
        if len(by_seed) > 1:
            beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
            p, at_most = min(1.0, 2 * (1 + beyond) / (resamples + 1)), beyond == 0
    of_conditions = differences.mean(axis=0)
    spread = float(of_conditions.std(ddof=1))
    return Comparison(
        difference=difference,
        low=float(low),
        high=float(high),
        p=p,
        effect=difference / spread if spread > EQUAL else None,
        by_seed=tuple(by_seed.tolist()),
        n=differences.shape[1],
        at_most=at_most,
    )


def paired_t(differences: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """(low, high, p) of the t test (Student, 1908) that S >= 2 paired differences, not all equal, have the mean 0.

    The interval holds the mean with 95% confidence, p is two-sided. It supposes that differences are normal.
    """
    freedom = len(differences) - 1
    mean, error = np.mean(differences), np.std(differences, ddof=1) / np.sqrt(len(differences))
    half = stats.t.ppf(0.975, freedom) * error
    return float(mean - half), float(mean + half), float(2 * stats.t.sf(abs(mean) / error, freedom))


def checked(scores: np.ndarray) -> np.ndarray:
    """Scores (S, n) as float64; CondmixError unless S >= 1, n >= 2 and all of them are numbers."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[0] < 1 or scores.shape[1] < 2:
        raise CondmixError(f"scores of shape {scores.shape} were given; at least 1 seed x 2 conditions are needed")
    if not np.isfinite(scores).all():
        raise CondmixError("some scores are NaN or infinite; evaluate the run again")
    return scores


def holm(p: Sequence[float]) -> list[float]:
    """p-values of m tests, each adjusted so that P(any false discovery) stays below its level.

    Holm (1979), "A simple sequentially rejective multiple test procedure": the k-th smallest times m - k + 1, never
    less than a smaller one's, at most 1. No independence of the tests is needed.
    """
    adjusted = [0.0] * len(p)
    least = 0.0
    for place, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = least
    return adjusted


def verdict(difference: float, adjusted_p: float | None) -> str:
    """ "better" or "worse" where the adjusted p is below 0.05, else "no difference found"; that proves no equality.

    "one seed" where there is no p.
    """
    if adjusted_p is None:
        return UNTESTED
    if adjusted_p >= LEVEL:
        return NO_DIFFERENCE
    return "better" if difference > 0 else "worse"


def over_seeds(values: Sequence[float]) -> Spread:
    """Mean and standard deviation (divided by S - 1) of one number per seed, S >= 1."""
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


def seed_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float] | None:
    """(mean difference, low, high): the paired t interval, 95%, of numbers that exist once per seed, as distances do.

    None below 2 seeds. It supposes normal differences and knows nothing of the conditions.
    """
    if len(first) != len(second):
        raise CondmixError(f"{len(first)} and {len(second)} values can't be paired; give both the same seeds")
    if len(first) < 2:
        return None
    differences = np.subtract(first, second)
    mean = float(differences.mean())
    return mean, *(paired_t(differences)[:2] if differences.std() > EQUAL else (mean, mean))
