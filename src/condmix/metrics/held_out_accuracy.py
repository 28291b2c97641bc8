"""Accuracy over the pictures whose combination of attributes was held out: nothing like them was seen in training."""

from __future__ import annotations

import numpy as np

from condmix.metrics import Place, names_under
from condmix.metrics._judged import JUDGE_ERRORS, SEEN_BY, JudgedShare, per_attribute, rounded_share

KEY = "held_out_accuracy"


class HeldOutAccuracy(JudgedShare):
    order = 150
    places = Place.SETS
    needs = ("right", "held_out")
    explanation = (
        "Share of the attributes, named or not, that are right in pictures for combinations that no training picture "
        f"shows, {SEEN_BY}"
    )
    blind_to = f"whether the condition names the combination; {JUDGE_ERRORS}"

    def measures(self, files):
        each = {f"{KEY}.{name}": f"{name}, held-out combinations" for name in names_under(files, KEY)}
        headings = {f"{KEY}_mean": "scene, held-out combinations"} | each
        return [self.measure(key, heading) for key, heading in headings.items()]

    def compute(self, drawn):
        if not drawn.held_out.any():
            return {}
        right = drawn.right[drawn.held_out]
        return {
            KEY: per_attribute(right, np.ones_like(right), drawn.attributes),
            f"{KEY}_mean": rounded_share(right),
            "held_out_n": len(right),
        }
