"""Measures between sets of features against closed forms, torchmetrics and SciPy; by definition: test_metrics.py."""

import math

import numpy as np
import pytest
import torch

from condmix import CondmixError
from condmix.evaluation import distances
from condmix.evaluation.distances import (
    bootstrap_interval,
    diversity,
    frechet_interval,
    gaussian_mmd,
    kernel_distance,
    nearest,
    precision_recall,
)
from condmix.evaluation.frechet import Statistics, frechet_distance


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """Chunks smaller than the sets of these tests, and no divisor of their sizes."""
    monkeypatch.setattr(distances, "ROWS", 7)


def features(n: int, width: int, seed: int, spread: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed)) * spread + shift


def photos(n: int, seed: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def test_kernel_distance_equals_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    first, second = features(60, 16, seed=0).double(), features(60, 16, seed=1, shift=0.4).double()
    assert kernel_distance(first, second) == pytest.approx(poly_mmd(first, second).item(), rel=1e-12)


def test_kernel_distance_has_mean_0_between_equal_distributions():
    pairs = ((features(20, 4, seed=seed), features(30, 4, seed=1000 + seed)) for seed in range(200))
    values = torch.tensor([kernel_distance(first, second) for first, second in pairs])
    assert values.min() < 0 < values.max()
    assert abs(values.mean().item()) < 3 * values.std().item() / math.sqrt(200)


def test_gaussian_mmd_of_two_opposite_pictures():
    first, second = torch.tensor([[3.0, 0.0]]), torch.tensor([[-5.0, 0.0]])
    assert gaussian_mmd(first, second, sigma=2.0) == pytest.approx(1000 * (2 - 2 * math.exp(-4 / 8)))
    assert gaussian_mmd(first, first) == 0


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_equal_their_definition(k):
    real, drawn = features(30, 6, seed=6), features(40, 6, seed=7, spread=0.8, shift=0.5)

    def share(inside, of):  # of `inside`'s rows, within the reach of `of`
        radii = [sorted((y - x).norm().item() for x in of)[k] for y in of]  # entry 0 is y itself
        return sum(any((x - y).norm() <= r for y, r in zip(of, radii, strict=True)) for x in inside) / len(inside)

    expected = share(drawn, real), share(real, drawn)
    assert 0 < expected[1] < expected[0] < 1  # the drawn ones are near the real ones, and less varied
    assert precision_recall(real, drawn, k) == pytest.approx(expected)


def test_precision_and_recall_of_copies_and_of_far_away_pictures():
    real = features(20, 8, seed=8)
    assert precision_recall(real, real.flip(0)) == (1, 1)
    assert precision_recall(real, real + 100) == (0, 0)
    # Every real picture five times: all radii are 0, and only exact copies are within reach.
    wide = features(60, 300, seed=18)
    assert precision_recall(wide[:50].repeat(5, 1), wide[25:].repeat(5, 1)) == (25 / 35, 25 / 50)
    # All drawn pictures the same real one: precise, and nothing else is covered.
    assert precision_recall(real, real[:1].repeat(10, 1)) == (1, 1 / 20)


def test_precision_and_recall_do_not_depend_on_where_the_features_lie():
    real, drawn = (features(50, 8, seed=seed).double().round(decimals=2) for seed in (19, 20))
    near = precision_recall(real, drawn)
    assert 0 < near[0] < 1
    assert precision_recall(real + 1e7, drawn + 1e7) == near


def test_diversity():
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])  # sides 3, 4, 5
    assert diversity(torch.stack([corners, corners * 2 + 100, corners * 0])) == pytest.approx((4 + 8 + 0) / 3)


def test_a_planted_copy_is_at_distance_0_and_all_distances_equal_the_direct_ones(tmp_path):
    training = np.memmap(tmp_path / "training.u8", np.uint8, "w+", shape=(40, 16, 16, 3))
    training[:] = 255 - photos(40, seed=9) // 8  # bright: large sums, small differences
    pictures = photos(20, seed=10)
    pictures[:8] = training[::5]
    pictures[1, 0, 0, 0] ^= 1  # one step of one channel of one pixel
    found = nearest(pictures, np.memmap(tmp_path / "training.u8", np.uint8, "r", shape=training.shape))
    assert (found == 0).nonzero().flatten().tolist() == [0, 2, 3, 4, 5, 6, 7]
    assert found[1].item() == pytest.approx(1 / 255 / math.sqrt(16 * 16 * 3))
    gaps = (pictures[:, None].astype(np.int64) - training[None].astype(np.int64)) / 255
    direct = np.sqrt((gaps**2).mean(axis=(2, 3, 4))).min(1)
    np.testing.assert_allclose(found.numpy(), direct, rtol=1e-12)


def test_black_is_at_distance_1_from_white():
    pictures = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    assert nearest(pictures, 255 - pictures).tolist() == [1.0]


def test_the_bootstrap_interval_equals_scipys():
    from scipy.stats import bootstrap

    sample = features(40, 1, seed=11).double().exp().flatten()  # skewed: percentile and basic differ
    ours = bootstrap_interval(lambda index: sample[index].var().item(), 40, seed=0, resamples=4000, level=0.9)

    def theirs(method):
        found = bootstrap(
            (sample.numpy(),), lambda x, axis: x.var(axis, ddof=1), n_resamples=4000, confidence_level=0.9,
            method=method, rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        return (found.low, found.high)

    width = ours[1] - ours[0]
    assert ours == pytest.approx(theirs("basic"), abs=0.05 * width)
    assert ours != pytest.approx(theirs("percentile"), abs=0.05 * width)


def test_the_bootstrap_interval_covers_a_mean_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        sample = features(50, 1, seed=100 + seed, shift=3.0).numpy().ravel()
        low, high = bootstrap_interval(lambda index, s=sample: s[index.numpy()].mean(), 50, seed, 100, level=0.8)
        covered += low <= 3.0 <= high
    assert 0.70 <= covered / 200 <= 0.88


def test_the_seed_decides_the_interval_and_wider_levels_contain_narrower_ones():
    sample = features(30, 1, seed=12).flatten()

    def interval(seed, level=0.95):
        return bootstrap_interval(lambda index: sample[index].mean().item(), 30, seed, level=level)

    assert interval(1) == interval(1) != interval(2)
    (low, high), (inner_low, inner_high) = interval(1, 0.99), interval(1, 0.5)
    assert low < inner_low < inner_high < high


def test_the_frechet_interval_is_where_other_pictures_would_have_put_the_distance():
    width = 16
    reference = Statistics(1000, torch.zeros(width).double(), torch.eye(width).double() * 999)
    others = torch.tensor(
        [frechet_distance(Statistics.of(features(150, width, seed, shift=0.3)), reference) for seed in range(100, 200)]
    )
    drawn = features(150, width, seed=13, shift=0.3)
    low, high = frechet_interval(drawn, reference, seed=0, resamples=100)
    assert 0 < low < frechet_distance(Statistics.of(drawn), reference) < high
    assert 0.6 < (high - low) / (others.quantile(0.975) - others.quantile(0.025)) < 1.6


@pytest.mark.parametrize("measure", [kernel_distance, gaussian_mmd, precision_recall])
def test_sets_that_cannot_be_compared_are_refused(measure):
    good, bad = features(10, 4, seed=14), features(10, 4, seed=15)
    bad[3, 2] = math.nan
    with pytest.raises(CondmixError, match="NaN or infinite"):
        measure(good, bad)
    with pytest.raises(CondmixError, match="width 4 and 5"):
        measure(good, features(10, 5, seed=15))
    with pytest.raises(CondmixError, match="pictures, got 0"):
        measure(good, good[:0])
    with pytest.raises(CondmixError, match="shape"):
        measure(good, good[0])


def test_what_has_no_answer_is_refused():
    good = features(10, 4, seed=16)
    with pytest.raises(CondmixError, match="at least 2 pictures, got 1"):
        kernel_distance(good, good[:1])
    with pytest.raises(CondmixError, match="k = 3 needs at least 4 pictures, got 3"):
        precision_recall(good, good[:3])
    with pytest.raises(CondmixError, match="k = 0"):
        precision_recall(good, good, k=0)
    with pytest.raises(CondmixError, match="all 0"):
        gaussian_mmd(good, good * 0)
    with pytest.raises(CondmixError, match="sigma must be above 0"):
        gaussian_mmd(good, good, sigma=0)
    with pytest.raises(CondmixError, match="at least 2 pictures, got 1"):
        diversity(good[:, None])
    with pytest.raises(CondmixError, match="shape"):
        diversity(good)
    with pytest.raises(CondmixError, match="NaN or infinite"):
        frechet_interval(good * math.inf, Statistics.of(good), seed=0)


def test_pictures_that_cannot_be_compared_are_refused():
    pictures = photos(3, seed=17)
    with pytest.raises(CondmixError, match="float64"):
        nearest(pictures / 255, pictures)
    with pytest.raises(CondmixError, match="uint8 .0, 16, 16, 3."):
        nearest(pictures, pictures[:0])
    with pytest.raises(CondmixError, match="16, 16, 3. and .8, 8, 3"):
        nearest(pictures, photos(3, seed=17, side=8))


def test_intervals_that_do_not_exist_are_refused():
    with pytest.raises(CondmixError, match="at least 2 pictures, got 1"):
        bootstrap_interval(lambda index: 0.0, 1, seed=0)
    with pytest.raises(CondmixError, match="between 0 and 1, got 95"):
        bootstrap_interval(lambda index: 0.0, 9, seed=0, level=95)
    with pytest.raises(CondmixError, match="0.95 interval needs at least 40 resamples, got 39"):
        bootstrap_interval(lambda index: 0.0, 9, seed=0, resamples=39)
    with pytest.raises(CondmixError, match="NaN or infinite"):
        bootstrap_interval(lambda index: math.nan, 9, seed=0)
