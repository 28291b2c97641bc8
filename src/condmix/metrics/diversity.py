"""Mean distance between pictures of one condition, in each feature space."""

from __future__ import annotations

from condmix.metrics import Metric, Pictures, Place, feature_names


class Diversity(Metric):
    order = 60
    pictures = Pictures.REPEATED
    places = Place.SETS
    higher_is_better = True
    explanation = "Mean distance, in feature units, between pictures drawn for one condition from different noise"
    blind_to = "whether the pictures are any good: noise is diverse"

    def measures(self, files):
        counts = [self.measure(f"diversity_n.{key}", higher_is_better=None) for key in ("conditions", "pictures_each")]
        return [*(self.measure(f"diversity.{name}", features=name) for name in feature_names(files)), *counts]

    def compute(self, drawn):
        from condmix.evaluation.distances import diversity

        each = drawn.per_condition
        return {
            "diversity": {s.name: round(diversity(s.drawn.unflatten(0, (-1, each))), 4) for s in drawn.spaces},
            "diversity_n": {"conditions": len(drawn.spaces[0].drawn) // each, "pictures_each": each},
        }
