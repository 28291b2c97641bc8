"""Accuracy per attribute by which of the picture's first two captions names it, whatever the condition.

The groups are the same for every variant, so that they show what each caption brought.
"""

from __future__ import annotations

from condmix.metrics import Pictures, Place, names_under
from condmix.metrics._judged import JUDGE_ERRORS, SEEN_BY, JudgedShare, per_attribute, rounded_share

KEY = "attribute_accuracy_by_caption"


class AttributeAccuracyByCaption(JudgedShare):
    order = 140
    pictures = Pictures.HEADLINE
    places = Place.MATRIX
    needs = ("right", "mentions")
    explanation = f"Share that is right of what only one, both or neither of two captions name, {SEEN_BY}"
    blind_to = f"further captions; {JUDGE_ERRORS}"

    def measures(self, files):
        return [
            self.measure(f"{KEY}.{group}.{name}", name, attribute=name, group=group)
            for group in names_under(files, KEY) for name in names_under(files, f"{KEY}.{group}")
        ]  # fmt: skip

    def compute(self, drawn):
        if drawn.mentions.shape[1] < 2:
            return {}
        first, second = drawn.mentions[:, 0], drawn.mentions[:, 1]
        groups = {
            "caption_1 only": first & ~second,
            "caption_2 only": second & ~first,
            "both": first & second,
            "neither": ~first & ~second,
        }
        groups = {group: chosen for group, chosen in groups.items() if chosen.any()}
        right, names = drawn.right, drawn.attributes
        return {
            KEY: {
                group: per_attribute(right, chosen, names) | {"all": rounded_share(right[chosen])}
                for group, chosen in groups.items()
            },
            "attribute_n_by_caption": {group: int(chosen.sum()) for group, chosen in groups.items()},
        }
