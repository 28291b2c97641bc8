"""Accuracy of each attribute over the pictures whose condition names it, and the mean over attributes."""

from __future__ import annotations

import numpy as np

from condmix.metrics import Place, names_under
from condmix.metrics._judged import JUDGE_ERRORS, SEEN_BY, JudgedShare, per_attribute

KEY = "attribute_accuracy"


class AttributeAccuracy(JudgedShare):
    order = 110
    places = Place.COMPARISON
    needs = ("right", "named")
    explanation = f"Share of the pictures whose condition names the attribute that show its value, {SEEN_BY}"
    blind_to = f"attributes that no condition names; {JUDGE_ERRORS}"

    def measures(self, files):
        names = tuple(names_under(files, KEY))
        mean = self.measure(
            f"{KEY}_mean", "named attributes", name="mean accuracy of named attributes", rank=20, judged_by=names
        )
        return [mean, *map(self._of, names)]

    def _of(self, name):
        return self.measure(
            f"{KEY}.{name}", name, name=f"accuracy of {name}", attribute=name, count=f"attribute_n.{name}",
            judged_by=(name,),
        )  # fmt: skip

    def compute(self, drawn):
        accuracy = per_attribute(drawn.right, drawn.named, drawn.attributes)
        counts = zip(drawn.attributes, drawn.named.sum(0), strict=True)
        return {
            KEY: accuracy,
            f"{KEY}_mean": round(float(np.mean(list(accuracy.values()))), 4),
            "attribute_n": {name: int(n) for name, n in counts if name in accuracy},
        }
