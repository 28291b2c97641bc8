"""The learning rate of a step."""

from __future__ import annotations

from condmix.settings.load import Train


def learning_rate(step: int, steps: int, train: Train) -> float:
    """Linear warm-up, a plateau at `train.lr`, then a linear fall to zero over the last `train.decay`."""
    warmup = max(1, round(train.warmup * steps))
    decay = max(1, round(train.decay * steps))
    return train.lr * min(1.0, (step + 1) / warmup, (steps - step) / decay)
