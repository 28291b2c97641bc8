"""What measures of the judge's answers share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from condmix.metrics import Metric

SEEN_BY = (
    "as the judge sees it: in the demo world the best fit of any scene, elsewhere a network trained on real pictures"
)
JUDGE_ERRORS = "the judge's own mistakes, of which its accuracy on real pictures shows a part; how the pictures look"


class JudgedShare(Metric):
    """The share of some pictures that the judge finds right."""

    higher_is_better = True
    share = True


def rounded_share(right: np.ndarray) -> float:
    """Of anything bool, in 0..1."""
    return round(float(right.mean()), 4)


def per_attribute(right: np.ndarray, chosen: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Share of the chosen (n, A) that are right (n, A), for each attribute of which any is chosen."""
    return {name: rounded_share(right[chosen[:, i], i]) for i, name in enumerate(names) if chosen[:, i].any()}
