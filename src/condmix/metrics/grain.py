"""How grainy pictures are: how far pixels stand out from their neighbours, where no edge passes."""

from __future__ import annotations

import numpy as np

from condmix.metrics import Metric, Pictures, Place


class Grain(Metric):
    order = 170
    pictures = Pictures.HEADLINE
    places = Place.SETS
    needs = ("pictures", "real")
    higher_is_better = False
    explanation = (
        "Difference of a pixel from the mean of its four neighbours, in grey levels 0 to 255, the median over pixels "
        "and channels, the mean over pictures; that of the real pictures stands beside it"
    )
    blind_to = "blur, which has none; texture that belongs there, so that it compares with real pictures' alone"

    def measures(self, files):
        return [self.measure("grain"), self.measure("grain_real", "grain, real pictures", higher_is_better=None)]

    def compute(self, drawn):
        return {"grain": round(grain(drawn.pictures), 4), "grain_real": round(grain(drawn.real), 4)}


def grain(pictures: np.ndarray) -> float:
    """Of pictures (n, S, S, 3) uint8, without their border; 0 for pictures of fewer than 3 x 3 pixels."""
    x = pictures.astype(np.float32)
    neighbours = (x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]) / 4
    apart = np.abs(x[:, 1:-1, 1:-1] - neighbours).reshape(len(x), -1)
    return float(np.median(apart, axis=1).mean()) if apart.size else 0.0
