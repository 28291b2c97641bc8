"""The Fréchet distance against closed forms, pytorch-fid and torchmetrics."""

import math

import numpy as np
import pytest
import torch

from condmix import CondmixError
from condmix.evaluation.frechet import Statistics, frechet_distance


def features(n: int, width: int, seed: int, spread: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator) / math.sqrt(width)
    return torch.randn(n, width, generator=generator) @ mix * spread + shift


def gaussian(mean: torch.Tensor, covariance: torch.Tensor, n: int = 100) -> Statistics:
    return Statistics(n, mean.double(), covariance.double() * (n - 1))


def pytorch_fid_distance(first: np.ndarray, second: np.ndarray) -> float:
    """pytorch-fid's value from raw features (n, F)."""
    from pytorch_fid.fid_score import calculate_frechet_distance
    from scipy.linalg import sqrtm

    mean_1, mean_2 = first.mean(0), second.mean(0)
    cov_1, cov_2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    try:
        return calculate_frechet_distance(mean_1, cov_1, mean_2, cov_2)
    except TypeError:  # pytorch-fid 0.3.0 calls sqrtm(disp=False), which SciPy 1.18 removed: by its formula
        root = sqrtm(cov_1 @ cov_2).real
        return ((mean_1 - mean_2) ** 2).sum() + np.trace(cov_1) + np.trace(cov_2) - 2 * np.trace(root)


def test_equal_covariances_leave_the_distance_of_the_means():
    covariance = torch.cov(features(100, 8, seed=0).T)
    mean_1, mean_2 = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    distance = frechet_distance(gaussian(mean_1, covariance), gaussian(mean_2, covariance))
    assert distance == pytest.approx((mean_1 - mean_2).square().sum().item(), rel=1e-6)


def test_commuting_covariances_compare_their_standard_deviations():
    rotation = torch.linalg.qr(features(6, 6, seed=2).double()).Q
    sd_1, sd_2 = torch.rand(2, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    first, second = (gaussian(torch.zeros(6), rotation @ (sd**2).diag() @ rotation.T) for sd in (sd_1, sd_2))
    assert frechet_distance(first, second) == pytest.approx((sd_1 - sd_2).square().sum().item(), rel=1e-9)


def test_one_dimension():
    first = gaussian(torch.tensor([1.0]), torch.tensor([[4.0]]))
    second = gaussian(torch.tensor([3.0]), torch.tensor([[25.0]]))
    assert frechet_distance(first, second) == pytest.approx((1 - 3) ** 2 + (2 - 5) ** 2)


def test_orthogonal_singular_covariances_share_nothing():
    first = gaussian(torch.zeros(4), torch.diag(torch.tensor([1.0, 2.0, 0.0, 0.0])))
    second = gaussian(torch.zeros(4), torch.diag(torch.tensor([0.0, 0.0, 3.0, 4.0])))
    assert frechet_distance(first, second) == pytest.approx(10.0)


@pytest.mark.parametrize("n", [20, 200])  # fewer and more pictures than features
def test_identical_sets_are_at_zero_and_order_does_not_matter(n):
    first, second = (Statistics.of(features(n, 64, seed)) for seed in (4, 5))
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-10)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-9)
    assert frechet_distance(first, second) > 1


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
@pytest.mark.parametrize("n", [300, 40])
def test_equals_pytorch_fid(n):
    first, second = features(n, 48, seed=6, shift=0.5), features(n + 9, 48, seed=7, spread=1.3)
    ours = frechet_distance(Statistics.of(first), Statistics.of(second))
    # its matrix square root of a singular product is itself only good to about 1e-5
    assert ours == pytest.approx(
        pytorch_fid_distance(first.double().numpy(), second.double().numpy()), rel=1e-9 if n > 48 else 1e-4
    )


def test_equals_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    class AsIs(torch.nn.Module):
        num_features = 16

        def forward(self, vectors):
            return vectors

    first, second = features(200, 16, seed=8), features(150, 16, seed=9, shift=0.3)
    theirs = FrechetInceptionDistance(feature=AsIs())
    theirs.update(first, real=True)
    theirs.update(second, real=False)
    ours = frechet_distance(Statistics.of(first), Statistics.of(second))
    assert ours == pytest.approx(theirs.compute().item(), rel=1e-5)


def test_statistics_keep_their_digits_far_from_the_origin():
    everything = features(101, 5, seed=10).double() + 1e6  # summed raw outer products would lose the covariance here
    statistics = Statistics.of(everything)
    assert statistics.n == 101
    torch.testing.assert_close(statistics.mean, everything.mean(0))
    reference = torch.from_numpy(np.cov(everything.numpy(), rowvar=False))
    torch.testing.assert_close(statistics.covariance, reference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused(value):
    bad = features(10, 4, seed=11)
    bad[3, 2] = value
    with pytest.raises(CondmixError, match="NaN or infinite"):
        Statistics.of(bad)


def test_too_few_pictures_and_other_widths_are_refused():
    with pytest.raises(CondmixError, match="at least 2 pictures, got 1"):
        frechet_distance(Statistics.of(features(1, 4, seed=12)), Statistics.of(features(9, 4, seed=13)))
    with pytest.raises(CondmixError, match="width 4 and 5"):
        frechet_distance(Statistics.of(features(9, 4, seed=12)), Statistics.of(features(9, 5, seed=13)))
    with pytest.raises(CondmixError, match="no pictures"):
        Statistics.of(torch.zeros(0, 4))
