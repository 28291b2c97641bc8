"""Share of all attributes of the held-out picture, named by the condition or not, that the drawn one shows."""

from __future__ import annotations

from condmix.metrics import Place
from condmix.metrics._judged import JUDGE_ERRORS, SEEN_BY, JudgedShare, rounded_share


class SceneAccuracy(JudgedShare):
    order = 100
    places = Place.COMPARISON
    needs = ("right",)
    explanation = f"Share of all attributes of the held-out picture, named or not, that the drawn one shows, {SEEN_BY}"
    blind_to = JUDGE_ERRORS

    def measures(self, files):
        return [
            self.measure("scene_accuracy", "scene", name="accuracy of the whole scene", rank=10, answers="scene")
        ]  # fmt: skip

    def compute(self, drawn):
        return {"scene_accuracy": rounded_share(drawn.right)}
