"""Statistics of pairs against closed forms, slow references and planted differences."""

import itertools

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
    assert found.low < 0.05 < found.high and found.low > 0 and found.p < 0.05
    assert stats.ttest_ind(first.mean(0), second.mean(0)).pvalue > 0.05  # unpaired, it is lost
    of_conditions = (first - second).mean(0)
    assert found.effect == pytest.approx(of_conditions.mean() / of_conditions.std(ddof=1))
    assert found.by_seed == pytest.approx((first - second).mean(1))


def test_swapping_the_experiments_only_changes_the_sign():
    first, second = scores(3, 50, 0.52, seed=4), scores(3, 50, 0.5, seed=5)
    one, other = compare(first, second, seed=6), compare(second, first, seed=6)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p == other.p and one.difference == -other.difference


def test_a_comparison_is_scipys_paired_t_test_of_the_seeds_means():
    for seeds in (2, 3, 8):
        first, second = scores(seeds, 50, 0.52, seed=seeds), scores(seeds, 50, 0.5, seed=20 + seeds)
        found, theirs = compare(first, second, seed=0), stats.ttest_rel(first.mean(1), second.mean(1))
        assert found.p == pytest.approx(theirs.pvalue) and not found.at_most
        interval_ = theirs.confidence_interval(0.95)
        assert [found.low, found.high] == pytest.approx([interval_.low, interval_.high])


def simulated(seeds, effect, runs, seed):
    """p of `runs` comparisons whose seeds differ by N(effect, 1), under conditions that are hard or easy."""
    rng = np.random.default_rng(seed)
    hardness = rng.normal(0, 3, (runs, 1, 4))
    of_seeds = rng.normal(effect, 1, (runs, seeds, 1))
    noise = rng.normal(0, 0.5, (runs, seeds, 4))
    noise -= noise.mean(axis=2, keepdims=True)
    firsts, seconds = hardness + of_seeds + noise, np.broadcast_to(hardness, (runs, seeds, 4))
    return np.array([compare(first, second, seed=0).p for first, second in zip(firsts, seconds, strict=True)])


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_where_there_is_no_difference_one_in_twenty_is_found(seeds):
    found = simulated(seeds, 0.0, runs=2000, seed=seeds)
    low, high = stats.binom.interval(0.999, 2000, 0.05)
    assert low <= (found < 0.05).sum() <= high
    assert stats.kstest(found, "uniform").pvalue > 0.001


@pytest.mark.parametrize(("seeds", "effect"), [(3, 2.0), (5, 1.0), (10, 1.0)])
def test_a_difference_is_found_as_often_as_the_noncentral_t_says(seeds, effect):
    shift, edge = effect * seeds**0.5, stats.t.ppf(0.975, seeds - 1)
    power = stats.nct.sf(edge, seeds - 1, shift) + stats.nct.cdf(-edge, seeds - 1, shift)
    assert 0.3 < power < 0.9  # else it would show nothing
    low, high = stats.binom.interval(0.999, 2000, power)
    assert low <= (simulated(seeds, effect, runs=2000, seed=seeds) < 0.05).sum() <= high


def test_among_many_comparisons_without_a_difference_one_is_rarely_found():
    pages = simulated(4, 0.0, runs=5000, seed=9).reshape(500, 10)
    some = sum(min(holm(p)) < 0.05 for p in pages)
    assert some <= stats.binom.ppf(0.999, 500, 0.05)
    assert sum(p.min() < 0.05 for p in pages) > 150  # uncorrected it would be 1 - 0.95 ** 10, which is 40%


def test_one_seed_has_an_interval_over_conditions_and_no_p():
    found = [compare(scores(1, 60, 0.5, i), scores(1, 60, 0.5, 1000 + i), seed=i, resamples=400) for i in range(100)]
    assert {one.p for one in found} == {None}
    assert np.mean([not one.low <= 0 <= one.high for one in found]) <= 0.12
    assert verdict(9.0, None) == "one seed"


def test_seeds_that_agree_in_everything_leave_the_conditions_to_be_resampled():
    same = scores(3, 60, 0.5, seed=7)
    assert compare(same, same, seed=0).p == 1.0 and compare(same, same, seed=0).effect is None
    one = scores(1, 60, 0.5, seed=8)
    alike = compare(np.repeat(one, 3, axis=0), np.full((3, 60), 0.5), seed=0)
    assert 0 < alike.p <= 1 and alike.low < alike.difference < alike.high


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


def test_p_is_never_below_what_the_resamples_can_show_and_is_then_a_bound():
    first, second = (np.repeat(one, 2, axis=0) for one in (scores(1, 30, 5.0, seed=14), scores(1, 30, 0.0, seed=15)))
    found = compare(first, second, seed=0, resamples=500)
    assert found.p == 2 / 501 and found.at_most  # Davison & Hinkley 1997, eq. 4.11, for both sides
    one, other = (np.repeat(scores(1, 30, 0.5, seed=seed), 2, axis=0) for seed in (16, 17))
    close = compare(one, other, seed=0)
    assert close.p > 0.01 and not close.at_most
    assert compare(first, second, seed=0) == compare(first, second, seed=0) != compare(first, second, seed=1)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []


def test_holm_is_the_closed_test_of_bonferroni():
    """Marcus, Peritz & Gabriel (1976): a test is adjusted to the largest p of all sets of tests that it is in."""
    rng = np.random.default_rng(18)
    for _ in range(20):
        p = rng.random(6) ** 3
        sets = [list(chosen) for size in range(1, 7) for chosen in itertools.combinations(range(6), size)]
        closed = [max(min(1, len(chosen) * p[chosen].min()) for chosen in sets if i in chosen) for i in range(6)]
        assert holm(p.tolist()) == pytest.approx(closed)


def test_a_verdict_needs_the_adjusted_p():
    assert [verdict(0.1, 0.049), verdict(-0.1, 0.049), verdict(0.1, 0.05)] == ["better", "worse", "no difference found"]


def test_seed_interval_is_scipys_paired_t_test():
    first, second = [3.1, 2.7, 3.6], [2.2, 2.5, 2.4]
    mean, low, high = seed_interval(first, second)
    theirs = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert [mean, low, high] == pytest.approx([np.subtract(first, second).mean(), theirs.low, theirs.high])
    assert seed_interval([1.0], [2.0]) is None and seed_interval([1.0, 2.0], [0.0, 1.0]) == (1.0, 1.0, 1.0)
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
