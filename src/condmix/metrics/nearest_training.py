"""Distance in pixels from drawn pictures to the nearest training picture: are some of them copies?"""

from __future__ import annotations

from typing import Any

from condmix.metrics import Metric, Pictures, Place

PERCENTS = (1, 5)  # copies would be few: they stand at the lower end, and a median does not notice them


class NearestTraining(Metric):
    order = 70
    pictures = Pictures.HEADLINE
    places = Place.SETS
    needs = ("pictures", "real", "training")
    higher_is_better = True
    explanation = (
        "Root mean square difference in 0..1 to the nearest training picture: the 1st and 5th percentile of the drawn "
        "pictures, and of real held-out ones. Drawn ones far below the real ones' speak of copies"
    )
    blind_to = (
        "copies that are moved, mirrored or recoloured; why a picture is near: one that shows a combination of the "
        "training split, as it may where its condition leaves something open, is nearer than held-out pictures are"
    )

    def measures(self, files):
        ways = (("", "", True), ("_of_real", ", real pictures", None))
        return [
            self.measure(f"nearest_training.p{p}{of}", f"nearest training, {p}%{words}", higher_is_better=way)
            for p in PERCENTS for of, words, way in ways
        ]  # fmt: skip

    def compute(self, drawn):
        from condmix.evaluation.distances import nearest

        found: dict[str, Any] = {"of": "root mean square difference of pixels, in 0..1"}
        for of, pictures in (("", drawn.pictures), ("_of_real", drawn.real)):
            distances = nearest(pictures, drawn.training)
            found |= {f"p{percent}{of}": round(float(distances.quantile(percent / 100)), 4) for percent in PERCENTS}
        return {"nearest_training": found}
