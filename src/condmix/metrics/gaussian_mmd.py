"""Gaussian-kernel distance in CLIP's features: CMMD's estimator (Jayasumana et al. 2024, arXiv:2401.09603)."""

from __future__ import annotations

from condmix.metrics import Metric, Pictures, Place, feature_names

FEATURES = "clip"
KEY = f"mmd_{FEATURES}"


class GaussianMmd(Metric):
    order = 50
    pictures = Pictures.HEADLINE
    places = Place.SETS
    higher_is_better = False
    explanation = "1000 times the squared maximum mean discrepancy of unit CLIP vectors under a Gaussian kernel, σ = 10"
    blind_to = "what CLIP does not see, such as fine texture; it lies above 0 by the order of 1/n for equal pictures"

    def measures(self, files):
        return [self.measure(KEY, features=FEATURES)] if FEATURES in feature_names(files) else []

    def compute_in(self, space, drawn):
        from condmix.evaluation.distances import gaussian_mmd

        return {KEY: round(gaussian_mmd(space.real, space.drawn), 4)} if space.name == FEATURES else {}
