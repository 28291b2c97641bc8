"""Improved precision and recall in each feature space (Kynkäänniemi et al. 2019, arXiv:1904.06991)."""

from __future__ import annotations

import itertools

from condmix.metrics import Metric, Pictures, Place, feature_names

ALLOWED = "_allowed"


class PrecisionRecall(Metric):
    order = 40
    pictures = Pictures.HEADLINE
    places = Place.SETS
    higher_is_better = True
    share = True
    explanation = (
        "Precision: the share of drawn pictures within the reach of real ones, balls as large as the distance to the "
        "third nearest neighbour. Recall: the share of these real pictures within the drawn ones' reach. The real ones "
        "are the test split's; where the name ends in allowed, one picture of either split for each test condition, "
        "drawn of those that show what it names, so that what it leaves open may be anything ever seen"
    )
    blind_to = (
        "which condition a picture was drawn for; small flaws where real pictures lie far apart; how realistic a "
        "picture is that shows what only the training split has, where the name does not end in allowed: real training "
        "pictures of the demo world have a precision of 0 there"
    )

    def measures(self, files):
        spaces = feature_names(files)
        kinds = itertools.product(("precision", "recall"), spaces, ("", ALLOWED))
        return [self.measure(f"{kind}_{name}{of}", features=name) for kind, name, of in kinds]

    def compute_in(self, space, drawn):
        from condmix.evaluation.distances import NEIGHBOURS, precision_recall

        of, real = ("", space.real) if space.allowed is None else (ALLOWED, space.allowed)
        if min(len(real), len(space.drawn)) <= NEIGHBOURS:
            print(f"precision_{space.name} and recall_{space.name} need more than {NEIGHBOURS} pictures: left out")
            return {}
        precision, recall = precision_recall(real, space.drawn)
        return {f"precision_{space.name}{of}": round(precision, 4), f"recall_{space.name}{of}": round(recall, 4)}
