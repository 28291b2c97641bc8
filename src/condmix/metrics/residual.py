"""How far a picture of the demo world is from the nearest scene: the residual of the fit that judges it."""

from __future__ import annotations

from condmix.metrics import Metric, Place


class Residual(Metric):
    key = "residual"
    order = 160
    places = Place.COMPARISON | Place.SETS
    needs = ("residual",)
    higher_is_better = False
    explanation = (
        "Root mean square difference of a picture from the best fit of any legal scene, over pixels and channels, in "
        "grey levels 0 to 255, the mean over pictures; 0.1 for real ones"
    )
    blind_to = "which scene it is; diversity"

    def compute(self, drawn):
        return {"residual": round(float(drawn.residual.mean()), 4)}
