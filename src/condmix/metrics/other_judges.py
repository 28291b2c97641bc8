"""Accuracies as other judges see them, beside those of the best one.

Networks that learnt from real pictures misread imperfect ones: in the demo world they confuse shapes that a fit of
every scene tells apart, and not equally for all models. On photographs, where both judges err, what two of them say
that share no layer is worth more than what one says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from condmix.metrics import Place, names_under
from condmix.metrics._judged import JUDGE_ERRORS, JudgedShare, per_attribute, rounded_share

KEY, SCENE, CLASS = "attribute_accuracy", "scene_accuracy", "class_accuracy"
JUDGES = {  # as in condmix.evaluation.observers
    "network": "a network that was trained on the data set's real pictures alone",
    "probe": "a linear classifier over the features of a network that was trained elsewhere",
}


class OtherJudges(JudgedShare):
    order = 180
    places = Place.SETS
    needs = ("right_by_others",)
    explanation = "The same shares as other judges see them"
    blind_to = JUDGE_ERRORS

    def measures(self, files):
        return [measure for judge in JUDGES for measure in self._of(judge, files)]

    def _of(self, judge, files):
        each = {f"{KEY}_{judge}.{name}": name for name in names_under(files, f"{KEY}_{judge}")}
        headings = {f"{SCENE}_{judge}": "scene", f"{KEY}_{judge}_mean": "named attributes"} | each
        if any(f"{CLASS}_{judge}" in facts for facts in files):
            headings = {f"{CLASS}_{judge}": "class"}
        explanation = f"The same share as {JUDGES[judge]} sees it"
        again = {f"{SCENE}_{judge}": "scene", f"{CLASS}_{judge}": "class"}
        return [
            self.measure(key, f"{name}, by the {judge}", explanation=explanation, again=again.get(key))
            for key, name in headings.items()
        ]

    def compute(self, drawn):
        found: dict[str, Any] = {}
        for judge, right in drawn.right_by_others.items():
            if not drawn.attributes:
                found[f"{CLASS}_{judge}"] = rounded_share(right)
            elif drawn.named is not None:
                accuracy = per_attribute(right, drawn.named, drawn.attributes)
                found |= {
                    f"{SCENE}_{judge}": rounded_share(right),
                    f"{KEY}_{judge}": accuracy,
                    f"{KEY}_{judge}_mean": round(float(np.mean(list(accuracy.values()))), 4),
                }
        return found
