"""Improved precision and recall in each feature space (Kynkäänniemi et al. 2019, arXiv:1904.06991)."""

from __future__ import annotations

from condmix.metrics import Metric, Pictures, Place, feature_names


class PrecisionRecall(Metric):
    order = 40
    pictures = Pictures.HEADLINE
    places = Place.SETS
    higher_is_better = True
    share = True
    explanation = (
        "Precision: the share of drawn pictures within the reach of the real ones, balls as large as the distance to "
        "the third nearest neighbour. Recall: the share of real pictures within the drawn ones' reach"
    )
    blind_to = "whether a picture shows what it was conditioned on; how realistic a combination is that no real one has"

    def measures(self, files):
        spaces = feature_names(files)
        return [self.measure(f"{kind}_{s}", features=s) for kind in ("precision", "recall") for s in spaces]

    def compute_in(self, space, drawn):
        from condmix.evaluation.distances import NEIGHBOURS, precision_recall

        if min(len(space.real), len(space.drawn)) <= NEIGHBOURS:
            print(f"precision_{space.name} and recall_{space.name} need more than {NEIGHBOURS} pictures: left out")
            return {}
        precision, recall = precision_recall(space.real, space.drawn)
        return {f"precision_{space.name}": round(precision, 4), f"recall_{space.name}": round(recall, 4)}
