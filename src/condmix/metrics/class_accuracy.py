"""Share of the pictures of known class that show it."""

from __future__ import annotations

from condmix.metrics import Place
from condmix.metrics._judged import JUDGE_ERRORS, SEEN_BY, JudgedShare, rounded_share


class ClassAccuracy(JudgedShare):
    order = 130
    places = Place.COMPARISON
    needs = ("class_right",)
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
