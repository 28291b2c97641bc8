"""Accuracies as the judge network sees them, beside those of a better judge.

Networks that learnt from real pictures misread imperfect ones: in the demo world they confuse shapes that a fit of
every scene tells apart, and not equally for all models.
"""

from __future__ import annotations

import numpy as np

from condmix.metrics import Place, names_under
from condmix.metrics._judged import JUDGE_ERRORS, JudgedShare, per_attribute, rounded_share

KEY = "attribute_accuracy_network"


class NetworkAccuracy(JudgedShare):
    order = 180
    places = Place.SETS
    needs = ("right_by_network", "named")
    explanation = "The same shares as a network sees them that was trained on real pictures alone"
    blind_to = JUDGE_ERRORS

    def measures(self, files):
        means = {"scene_accuracy_network": "scene, by the network", f"{KEY}_mean": "named attributes, by the network"}
        each = {f"{KEY}.{name}": f"{name}, by the network" for name in names_under(files, KEY)}
        return [self.measure(key, heading) for key, heading in (means | each).items()]

    def compute(self, drawn):
        right = drawn.right_by_network
        accuracy = per_attribute(right, drawn.named, drawn.attributes)
        return {
            "scene_accuracy_network": rounded_share(right),
            KEY: accuracy,
            f"{KEY}_mean": round(float(np.mean(list(accuracy.values()))), 4),
        }
