"""How well pictures fit those of their captions that did not condition them, by a CLIP that conditioned nothing."""

from __future__ import annotations

import numpy as np

from condmix.metrics import Metric, Pictures, Place

KEY = "held_out_captions"


class HeldOutCaptions(Metric):
    order = 150
    pictures = Pictures.HEADLINE
    places = Place.NOWHERE
    needs = ("captions",)
    higher_is_better = True
    explanation = (
        "Mean cosine of pictures to the captions that did not condition them, beside that of real pictures and of "
        "other pictures' captions; and the share of other pictures' captions that fit less well (Xu et al. 2018)"
    )
    blind_to = "what that CLIP does not see; what no caption says"

    def measures(self, files):
        beside = ("of_real_pictures", "of_others", "captions")
        return [
            self.measure(f"{KEY}.score"),
            self.measure(f"{KEY}.rank", share=True),
            *(self.measure(f"{KEY}.{name}", higher_is_better=None) for name in beside),
        ]

    def compute(self, drawn):
        fit = drawn.captions
        if not fit.held_out:
            return {}
        ranks = np.where(fit.conditioned, np.nan, fit.ranks)
        return {
            KEY: {
                "score": round(fit.drawn.mean().item(), 4),
                "of_real_pictures": round(fit.real.mean().item(), 4),
                "of_others": round(fit.others.mean().item(), 4),
                "rank": round(float(np.nanmean(ranks)), 4),
                "captions": fit.held_out,
                "scorer": fit.scorer,
            }
        }
