"""Fréchet distance in each feature space (Heusel et al. 2017, arXiv:1706.08500): FID in Inception's, else fd_<…>."""

from __future__ import annotations

from condmix.metrics import Metric, feature_names
from condmix.metrics._spaces import frechet_name

RANKS = {"inception": 40, "judge": 50}
OTHERS = 60  # the rank of other spaces, among which names decide


class Frechet(Metric):
    order = 10
    higher_is_better = False
    explanation = (
        "Fréchet distance between Gaussians fitted to the features of generated and of real pictures, |μ₁ − μ₂|² + "
        "tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), in the feature space that the name carries"
    )
    blind_to = "whether a picture shows what it was conditioned on; copies of training pictures"

    def measures(self, files):
        spaces = sorted(feature_names(files), key=lambda name: name != "inception")
        return [self._in(name) for name in spaces]

    def _in(self, features):
        key = frechet_name(features)
        if key == "fid":
            other = "It is that of pytorch-fid's InceptionV3, by which FID is defined."
        else:
            other = "It is not FID, which is defined on InceptionV3's features; two spaces' values don't compare."
        return self.measure(
            key, "FID" if key == "fid" else key, rank=RANKS.get(features, OTHERS), features=features,
            explanation=f"{self.explanation}. {other}",
        )  # fmt: skip

    def compute_in(self, space, drawn):
        from condmix.evaluation.frechet import Statistics, frechet_distance

        return {frechet_name(space.name): round(frechet_distance(Statistics.of(space.drawn), space.statistics), 4)}
