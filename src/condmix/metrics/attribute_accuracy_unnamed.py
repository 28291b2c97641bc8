"""Accuracy of each attribute over the pictures whose condition does not name it: chance, and what leaks through."""

from __future__ import annotations

from condmix.metrics import Place, names_under
from condmix.metrics._judged import JUDGE_ERRORS, SEEN_BY, JudgedShare, per_attribute

KEY = "attribute_accuracy_unnamed"


class AttributeAccuracyUnnamed(JudgedShare):
    order = 120
    places = Place.UNNAMED
    needs = ("right", "named")
    explanation = f"Share of the pictures whose condition does not name the attribute that show its value, {SEEN_BY}"
    blind_to = f"why it is right, by chance or by what a condition implies; {JUDGE_ERRORS}"

    def measures(self, files):
        names = names_under(files, KEY)
        return [self.measure(f"{KEY}.{name}", name, name=f"accuracy of {name}", attribute=name) for name in names]

    def compute(self, drawn):
        return {KEY: per_attribute(drawn.right, ~drawn.named, drawn.attributes)}
