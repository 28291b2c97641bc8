"""The learning rate of a step, for everything that is trained."""

from __future__ import annotations


def share(step: int, steps: int, warmup: float, decay: float | None = None) -> float:
    """Of the full rate: a linear rise, a plateau, and a linear fall to zero, which ends after the last step.

    Rise and fall take these shares of the steps; without a `decay` the fall begins where the rise ends.
    """
    rise = max(1, round(warmup * steps))
    fall = max(1, steps - rise if decay is None else round(decay * steps))
    return min(1.0, (step + 1) / rise, (steps - step) / fall)
