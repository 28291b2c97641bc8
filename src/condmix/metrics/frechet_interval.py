"""Bootstrap interval of each Fréchet distance: how far it could have come out otherwise, with other pictures."""

from __future__ import annotations

from condmix.metrics import Metric, Pictures, Place, feature_names
from condmix.metrics._spaces import frechet_name


class FrechetInterval(Metric):
    order = 20
    pictures = Pictures.HEADLINE
    places = Place.NOWHERE
    higher_is_better = False
    explanation = "95% bootstrap interval over the drawn pictures of the Fréchet distance at this n"
    blind_to = "the luck of the training's seed; the bias of the distance, which falls with growing n"

    def measures(self, files):
        keys = [(name, frechet_name(name)) for name in feature_names(files)]
        return [self.measure(f"{key}_interval", f"{key}, 95%", features=name, interval=True) for name, key in keys]

    def compute_in(self, space, drawn):
        from condmix.evaluation.distances import frechet_interval

        if not drawn.resamples:
            return {}
        ends = frechet_interval(space.drawn, space.statistics, drawn.seed, drawn.resamples)
        return {f"{frechet_name(space.name)}_interval": [round(end, 4) for end in ends]}
