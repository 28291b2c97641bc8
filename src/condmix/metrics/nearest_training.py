"""Distance in pixels from drawn pictures to the nearest training picture: are they copies?"""

from __future__ import annotations

from condmix.metrics import Metric, Pictures, Place


class NearestTraining(Metric):
    order = 70
    pictures = Pictures.HEADLINE
    places = Place.SETS
    needs = ("pictures", "real", "training")
    higher_is_better = True
    explanation = (
        "Root mean square difference in 0..1 to the nearest training picture, the median over drawn pictures; far "
        "below that of real held-out ones it speaks of copies"
    )
    blind_to = "copies that are moved, mirrored or recoloured; how realistic a picture is"

    def measures(self, files):
        ways = {"median": True, "median_of_real": None}
        return [
            self.measure(f"nearest_training.{name}", f"nearest training, {name}", higher_is_better=way)
            for name, way in ways.items()
        ]

    def compute(self, drawn):
        from condmix.evaluation.distances import nearest

        def median(pictures):
            return round(float(nearest(pictures, drawn.training).median()), 4)

        of = "root mean square difference of pixels, in 0..1"
        return {"nearest_training": {"of": of, "median": median(drawn.pictures), "median_of_real": median(drawn.real)}}
