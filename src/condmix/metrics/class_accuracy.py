"""Share of the pictures of known class that show it."""

from __future__ import annotations

from condmix.metrics import Metric, Place
from condmix.metrics._judged import JUDGE_ERRORS, SEEN_BY, rounded_share


class ClassAccuracy(Metric):
    order = 130
    places = Place.COMPARISON
    needs = ("class_right",)
    higher_is_better = True
    share = True
    explanation = f"Share of the pictures that show the held-out picture's class, {SEEN_BY}"
    blind_to = f"all but the class; {JUDGE_ERRORS}"

    def measures(self, files):
        # where attributes are judged, the class is one of them
        return [
            self.measure(
                "class_accuracy", "class", name="class accuracy", rank=30, answers="class", judged_by=("class",),
                unless="attribute_accuracy_mean",
            )
        ]  # fmt: skip

    def compute(self, drawn):
        return {"class_accuracy": rounded_share(drawn.class_right)}
