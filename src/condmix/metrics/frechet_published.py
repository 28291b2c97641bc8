"""Fréchet distance by FID's published protocol: many pictures, against the statistics of the training split."""

from __future__ import annotations

from condmix.metrics import Metric, Pictures, Place, feature_names
from condmix.metrics._spaces import frechet_name


class FrechetPublished(Metric):
    order = 15
    pictures = Pictures.PUBLISHED
    places = Place.SETS
    higher_is_better = False
    explanation = (
        "Fréchet distance of evaluate.published_n pictures, drawn for all test conditions in turn, to the training "
        "split. With 50,000 in Inception's features it is FID as published for CIFAR-10 (Heusel et al. 2017, "
        "arXiv:1706.08500; Ho et al. 2020, arXiv:2006.11239)"
    )
    blind_to = "copies of training pictures, which lower it; whether a picture shows what it was conditioned on"

    def measures(self, files):
        distances = [self.measure(f"{frechet_name(name)}_train", features=name) for name in feature_names(files)]
        return [*distances, self.measure("published_n", higher_is_better=None)]

    def compute(self, drawn):
        return {} if drawn.spaces[0].training is None else {"published_n": len(drawn.spaces[0].drawn)}

    def compute_in(self, space, drawn):
        from condmix.evaluation.frechet import Statistics, frechet_distance

        if space.training is None:
            return {}
        distance = frechet_distance(Statistics.of(space.drawn), space.training)
        return {f"{frechet_name(space.name)}_train": round(distance, 4)}
