"""Statistics of pairs against closed forms, slow references and planted differences."""

import numpy as np
import pytest
from scipy import stats

from condmix import CondmixError
from condmix.experiments.statistics import (
    asked_score,
    compare,
    crossed_bootstrap,
    holm,
    interval,
    over_seeds,
    scene_score,
    seed_interval,
    verdict,
)


def scores(seeds, n, mean, seed, sd=0.2):
    return np.random.default_rng(seed).normal(mean, sd, (seeds, n))


def test_scores_count_all_attributes_or_only_the_asked_ones():
    right = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], bool)
    asked = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], bool)
    assert scene_score(right).tolist() == [0.5, 0.75, 0.0]
    assert asked_score(right, asked).tolist() == [0.5, 0.0]  # the second picture is asked for nothing


def test_pairing_finds_a_difference_that_hides_among_hard_and_easy_conditions():
    hardness = scores(1, 200, 0.5, seed=0, sd=1.0)
    first = hardness + scores(3, 200, 0.05, seed=1, sd=0.1)
    second = hardness + scores(3, 200, 0.0, seed=2, sd=0.1)
    found = compare(first, second, seed=3)
    assert found.difference == pytest.approx((first - second).mean())
    assert found.low < 0.05 < found.high and found.low > 0 and found.p < 0.001
    assert stats.ttest_ind(first.mean(0), second.mean(0)).pvalue > 0.05  # unpaired, it is lost
    of_conditions = (first - second).mean(0)
    assert found.effect == pytest.approx(of_conditions.mean() / of_conditions.std(ddof=1))
    assert found.by_seed == pytest.approx((first - second).mean(1))


def test_swapping_the_experiments_only_changes_the_sign():
    first, second = scores(3, 50, 0.52, seed=4), scores(3, 50, 0.5, seed=5)
    one, other = compare(first, second, seed=6), compare(second, first, seed=6)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p == other.p and one.difference == -other.difference


def test_no_difference_is_rarely_found_where_there_is_none():
    p = [compare(scores(3, 60, 0.5, i), scores(3, 60, 0.5, 1000 + i), seed=i, resamples=400).p for i in range(100)]
    assert np.mean(np.less(p, 0.05)) <= 0.08
    same = scores(3, 60, 0.5, seed=7)
    assert compare(same, same, seed=0).p == 1.0 and compare(same, same, seed=0).effect is None


def test_with_one_seed_the_interval_is_that_of_a_mean_over_conditions():
    values = scores(1, 400, 0.3, seed=8)
    low, high = interval(values, seed=9, resamples=4000)
    half = 1.96 * values.std() / 20
    assert [low, high] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.1 * half)


def test_resampled_means_spread_as_owen_derives():
    values = scores(4, 40, 0.0, seed=10) + scores(4, 1, 0.0, seed=11) + scores(1, 40, 0.0, seed=12)
    seeds, n = values.shape
    # Var = rows / S + columns / n + single cells / (S n), exactly so for independent multinomial weights; the seeds'
    # part is stretched to the unbiased variance
    rows, columns = values.mean(1), values.mean(0)
    cells = values - rows[:, None] - columns + values.mean()
    exact = rows.var(ddof=1) / seeds + columns.var() / n + cells.var() / (seeds * n)
    assert crossed_bootstrap(values, seed=13, resamples=20_000).var() == pytest.approx(exact, rel=0.05)


def test_p_is_never_below_what_the_resamples_can_show_and_depends_on_the_seed_only():
    first, second = scores(2, 30, 5.0, seed=14), scores(2, 30, 0.0, seed=15)
    assert compare(first, second, seed=0, resamples=500).p == 1 / 500
    assert compare(first, second, seed=0) == compare(first, second, seed=0) != compare(first, second, seed=1)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []


def test_a_verdict_needs_the_adjusted_p():
    assert [verdict(0.1, 0.049), verdict(-0.1, 0.049), verdict(0.1, 0.05)] == ["better", "worse", "no difference found"]


def test_seed_interval_is_scipys_paired_t_test():
    first, second = [3.1, 2.7, 3.6], [2.2, 2.5, 2.4]
    mean, low, high = seed_interval(first, second)
    theirs = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert [mean, low, high] == pytest.approx([np.subtract(first, second).mean(), theirs.low, theirs.high])
    assert seed_interval([1.0], [2.0]) is None
    assert over_seeds([1.0, 3.0]).sd == pytest.approx(2**0.5) and over_seeds([1.0]).sd is None


def test_what_is_no_pair_is_refused():
    with pytest.raises(CondmixError, match="2 seeds x 9 conditions can't be paired with scores of 2 x 8"):
        compare(np.zeros((2, 9)), np.zeros((2, 8)), seed=0)
    with pytest.raises(CondmixError, match="at least 1 seed x 2 conditions"):
        compare(np.zeros((2, 1)), np.zeros((2, 1)), seed=0)
    with pytest.raises(CondmixError, match="NaN"):
        interval(np.full((2, 3), np.nan), seed=0)
    with pytest.raises(CondmixError, match="2 and 1 values"):
        seed_interval([1.0, 2.0], [1.0])
