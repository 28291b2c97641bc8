"""Fréchet distance to real pictures that show what the conditions name, whatever they show besides."""

from __future__ import annotations

from condmix.metrics import Metric, Pictures, Place, feature_names
from condmix.metrics._spaces import frechet_name


class FrechetAllowed(Metric):
    order = 25
    pictures = Pictures.HEADLINE
    places = Place.SETS
    higher_is_better = False
    explanation = (
        "Fréchet distance to one real picture of either split for each test condition, drawn of those that show what "
        "it names. The distance to the test split also counts what no condition names: in the demo world no training "
        "picture has a combination of the test split's, so real training pictures are far from it too"
    )
    blind_to = "which condition a picture was drawn for; copies of training pictures; its reference knows the condition"

    def measures(self, files):
        return [self.measure(f"{frechet_name(name)}_allowed", features=name) for name in feature_names(files)]

    def compute_in(self, space, drawn):
        from condmix.evaluation.frechet import Statistics, frechet_distance

        if space.allowed is None:
            return {}
        distance = frechet_distance(Statistics.of(space.drawn), Statistics.of(space.allowed))
        return {f"{frechet_name(space.name)}_allowed": round(distance, 4)}
