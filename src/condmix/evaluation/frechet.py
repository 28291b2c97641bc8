"""Features -> Gaussian statistics -> the Fréchet distance between two sets of pictures.

    d^2 = |mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1^{1/2} S_2 S_1^{1/2})^{1/2}

the 2-Wasserstein distance between two Gaussians (Dowson & Landau, 1982). Only with the features of
pytorch-fid's Inception network is it the FID of Heusel et al. (2017): `condmix.evaluation.features` owns that name.
"""
# F features, n pictures

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from condmix import CondmixError


@dataclass(frozen=True)
class Statistics:
    """What a Gaussian fit to n feature vectors needs: mean (F,) and scatter (F, F), float64 on the CPU.

    `scatter` is the sum of outer products of *centred* features: summing raw outer products and subtracting
    n mu mu^T at the end would cancel most digits where the mean is large against the spread.
    """

    n: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Statistics:
        """Statistics of features (n, F), n >= 1."""
        if not len(features):
            raise CondmixError("no pictures were given, so they have no feature statistics")
        if not torch.isfinite(features).all():
            raise CondmixError(
                "the features of some pictures are NaN or infinite, so no Fréchet distance "
                "exists; check the pictures and the feature network's weights"
            )
        features = features.detach().cpu().double()
        mean = features.mean(0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance (F, F), divided by n - 1 as numpy.cov and pytorch-fid do."""
        if self.n < 2:
            raise CondmixError(f"a covariance needs at least 2 pictures, got {self.n}")
        return self.scatter / (self.n - 1)

    @functools.cached_property
    def factor(self) -> Tensor:
        """A (rank, F) with A^T A the covariance; kept, since a bootstrap compares many sets to one reference."""
        values, vectors = torch.linalg.eigh(self.covariance)
        # The usual numerical rank: what lies below is rounding, of either sign.
        real = values > values.abs().max() * len(values) * torch.finfo(values.dtype).eps
        return values[real].sqrt()[:, None] * vectors[:, real].T


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """d^2 between the Gaussians of two sets of features (what "an FID of 10" counts), >= 0.

    Right for singular covariances too, so for fewer pictures than features; but d^2 falls with growing n,
    so compare only figures of the same n. Nothing is added to the diagonals, and no root of the
    non-symmetric S_1 S_2 is taken: the sought trace is the sum of the square roots of the eigenvalues of
    S_1^{1/2} S_2 S_1^{1/2}, and with S_i = A_i^T A_i from symmetric eigendecompositions these roots are the
    singular values of A_1 A_2^T. Taking those directly spares the roots of eigenvalues that are mere
    rounding (1e-16 becomes 1e-8, thousands of times).
    """
    if first.mean.shape != second.mean.shape:
        raise CondmixError(
            f"features of width {len(first.mean)} and {len(second.mean)} can't be compared; "
            "both sets need the same feature network"
        )
    overlap = torch.linalg.svdvals(first.factor @ second.factor.T).sum()
    traces = first.covariance.trace() + second.covariance.trace()
    squared = (first.mean - second.mean).square().sum() + traces - 2 * overlap
    return max(0.0, squared.item())
